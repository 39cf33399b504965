"""``--fresh``: nothing of earlier runs is taken over, nothing of them is left behind, and it is said how to go on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline import local
from pipeline.driver import Outcome
from pipeline.errors import InterruptedRunError
from tests.pipeline.dataset.archives import Run, rows, tree, write_archive


def interrupted(units: Any, *rest: Any) -> Outcome:
    return replace(local.run_units(units[:2], *rest), interrupted=True)


def results(folder: Path) -> set[str]:
    return {name for name in tree(folder) if not name.startswith("_") and name != "README.md"}


@pytest.mark.parametrize("formats", [("png", "same"), ("webp", "png"), ("png", "png")])
def test_what_an_interrupted_run_made_goes_from_the_tree_or_is_named(
    tmp_path: Path, images: Run, formats: tuple[str, str]
) -> None:
    write_archive(tmp_path / "in", 12)
    for _ in range(2):  # what the first leaves is not forgotten by the second
        with pytest.raises(InterruptedRunError):
            images(tmp_path / "in", tmp_path / "out", interrupted, format=formats[0], shard_rows=4, fresh=True)
    made = results(tmp_path / "out")
    (tmp_path / "in/0/picture 0.png").unlink()

    report = images(tmp_path / "in", tmp_path / "out", format=formats[1], shard_rows=4, fresh=True)

    assert report["images_known"] == 0
    assert report["removed"] == ["0/picture 0.png"]
    left = results(tmp_path / "out") - {row["output"] for row in rows(tmp_path / "out")}
    assert {name.removesuffix(".webp") for name in left} == {"0/picture 0.png"}
    assert left <= made
    assert images(tmp_path / "in", tmp_path / "out", format=formats[1], shard_rows=4)["images_processed"] == 0


def test_what_was_discarded_goes_though_another_run_finishes(tmp_path: Path, images: Run) -> None:
    write_archive(tmp_path / "in", 12)
    images(tmp_path / "in", tmp_path / "out", output="parquet", shard_rows=4)
    with pytest.raises(InterruptedRunError):
        images(tmp_path / "in", tmp_path / "out", interrupted, shard_rows=4, fresh=True)

    report = images(tmp_path / "in", tmp_path / "out", shard_rows=4)

    assert report["images_known"] == 0
    assert not list((tmp_path / "out/data").glob("*"))
    images(tmp_path / "in", tmp_path / "whole", shard_rows=4)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    work = {path.name for path in (tmp_path / "out/_swinir").iterdir()}
    assert work == {path.name for path in (tmp_path / "whole/_swinir").iterdir()}


def test_it_is_said_that_going_on_takes_no_fresh_and_it_does(tmp_path: Path, images: Run) -> None:
    write_archive(tmp_path / "in", 12)
    with pytest.raises(InterruptedRunError, match=r"^stopped at 2 of \d+ shards; the same command goes on from there$"):
        images(tmp_path / "in", tmp_path / "out", interrupted, shard_rows=4)
    with pytest.raises(InterruptedRunError, match=r"shards; the same command without --fresh goes on from there$"):
        images(tmp_path / "in", tmp_path / "out", interrupted, shard_rows=4, fresh=True)
    report = images(tmp_path / "in", tmp_path / "out", shard_rows=4)
    assert 0 < report["images_processed"] < report["images"]


def test_ctrl_c_while_nothing_is_upscaled_says_so_too(tmp_path: Path, images: Run) -> None:
    write_archive(tmp_path / "in", 2)

    def pressed(*args: Any) -> Outcome:
        raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError, match="interrupted; the same command without --fresh goes on from where"):
        images(tmp_path / "in", tmp_path / "out", pressed, fresh=True)
    with pytest.raises(KeyboardInterrupt):
        images(tmp_path / "in", tmp_path / "out", pressed)
