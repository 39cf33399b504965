"""The same image job again: it does what is new, changed or gone, and nothing else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import local
from pipeline.driver import Outcome
from pipeline.errors import ConfigError, MediaError
from pipeline.storage import Store
from tests.pipeline.dataset.archives import Run, encoded, picture, rows, tree, write_archive


def refuse_to_run(*args: Any) -> Outcome:
    raise AssertionError("there is nothing to do, for which no worker need be started")


@pytest.mark.parametrize("output", ["files", "parquet", "webdataset"])
def test_f3_a_second_run_does_nothing_and_writes_the_same_bytes(tmp_path: Path, images: Run, output: str) -> None:
    write_archive(tmp_path / "in")
    first = images(tmp_path / "in", tmp_path / "out", output=output, shard_rows=5)
    before = tree(tmp_path / "out")
    second = images(tmp_path / "in", tmp_path / "out", refuse_to_run, output=output, shard_rows=5)
    assert first["images_processed"] == first["images"] == 29
    assert second["images_processed"] == 0
    assert second["counts"] == first["counts"]
    assert tree(tmp_path / "out") == before


@pytest.mark.parametrize("output", ["files", "parquet", "webdataset"])
def test_what_is_new_is_added_what_changed_is_redone_and_what_is_gone_is_reported(
    tmp_path: Path, images: Run, output: str
) -> None:
    write_archive(tmp_path / "in", 40)
    images(tmp_path / "in", tmp_path / "out", output=output, shard_rows=5)
    (tmp_path / "in/1/new.png").write_bytes(encoded(picture(500)))
    (tmp_path / "in/2/picture 2.png").write_bytes(encoded(picture(501)))
    (tmp_path / "in/a.png").unlink()

    report = images(tmp_path / "in", tmp_path / "out", output=output, shard_rows=5)

    assert report["removed"] == ["a.png"]
    failed = sum(count for status, count in report["counts"].items() if status != "ok")
    assert 2 <= report["images_processed"] <= 2 + failed, "a shard is done again, of its pictures only what is new"
    assert 0 < report["images_known"] < 45
    shutil.rmtree(tmp_path / "out/_swinir")
    images(tmp_path / "in", tmp_path / "whole", output=output, shard_rows=5)
    after = tree(tmp_path / "out")
    if output == "files":
        assert after.pop("a.png")
    assert after == tree(tmp_path / "whole")


@pytest.mark.parametrize("output", ["files", "parquet", "webdataset"])
def test_other_names_and_times_are_not_other_pictures(tmp_path: Path, images: Run, output: str) -> None:
    write_archive(tmp_path / "in", 12)
    images(tmp_path / "in", tmp_path / "out", output=output, shard_rows=5)
    for path in [path for path in (tmp_path / "in").rglob("*.png") if path.name not in ("empty.png", "cut.png")]:
        os.utime(path, ns=(1, 1))
        path.rename(path.with_name(f"new {path.name}"))

    report = images(tmp_path / "in", tmp_path / "out", output=output, shard_rows=5)

    assert report["images_processed"] == report["images"] - report["images_known"]
    assert report["images_known"] == report["counts"]["ok"]
    images(tmp_path / "in", tmp_path / "whole", output=output, shard_rows=5)
    after, whole = tree(tmp_path / "out"), tree(tmp_path / "whole")
    assert {name: sha for name, sha in after.items() if name in whole} == whole


def test_what_is_a_result_no_more_goes_from_the_tree(tmp_path: Path, images: Run) -> None:
    write_archive(tmp_path / "in", 3)
    images(tmp_path / "in", tmp_path / "out")
    (tmp_path / "in/a.png").write_bytes(b"no picture any more")
    (tmp_path / "in/0/picture 0.png").unlink()
    (tmp_path / "out/mine.txt").write_text("not of this program")
    images(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out/a.png").exists()
    assert (tmp_path / "out/0/picture 0.png").exists(), "the only one that is left of it"
    images(tmp_path / "in", tmp_path / "out", format="webp", fresh=True)
    names = {name for name in tree(tmp_path / "out") if name != "0/picture 0.png" and not name.startswith("_")}
    assert names == {row["output"] for row in rows(tmp_path / "out") if row["output"]} | {"README.md", "mine.txt"}


class KilledError(Exception):
    pass


@pytest.mark.parametrize("output", ["files", "parquet"])
def test_what_a_killed_run_made_of_sources_that_changed_goes_or_is_named(tmp_path: Path, images: Run, output: str) -> None:
    write_archive(tmp_path / "in", 12)

    def killed(units: Any, *rest: Any) -> Outcome:
        local.run_units(units[:4], *rest)
        raise KilledError

    with pytest.raises(KilledError):
        images(tmp_path / "in", tmp_path / "out", killed, output=output, shard_rows=3)
    bad, gone = sorted(path.relative_to(tmp_path / "in") for path in (tmp_path / "in/0").iterdir())[:2]
    (tmp_path / "in" / bad).write_bytes(b"no picture any more")
    (tmp_path / "in" / gone).unlink()

    report = images(tmp_path / "in", tmp_path / "out", output=output, shard_rows=3)

    assert report["removed"] == [gone.as_posix()]
    images(tmp_path / "in", tmp_path / "whole", output=output, shard_rows=3)
    after = tree(tmp_path / "out")
    if output == "files":
        assert after.pop(gone.as_posix())
    assert after == tree(tmp_path / "whole")


def test_a_result_stays_that_another_input_has_by_now(tmp_path: Path, images: Run) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(encoded(picture(1)))
    images(tmp_path / "in", tmp_path / "out", format="webp")
    place = rows(tmp_path / "out")[0]["output"]
    (tmp_path / "in/a.png").write_bytes(b"no picture any more")
    (tmp_path / "in/a.jpg").write_bytes(encoded(picture(2), "JPEG"))
    images(tmp_path / "in", tmp_path / "out", format="webp")
    there = {row["output"] for row in rows(tmp_path / "out") if row["output"]}
    assert all((tmp_path / "out" / name).exists() for name in there)
    assert (tmp_path / "out" / place).exists() == (place in there)


def test_of_two_jobs_at_once_the_first_has_the_destination(tmp_path: Path, images: Run) -> None:
    """In object stores there are no locks: the second finds what the first noted, however far it has come."""
    write_archive(tmp_path / "in", 2)
    work = Store(f"{tmp_path}/out/_swinir")
    work.create_once("source.txt", str(tmp_path / "other").encode())
    with pytest.raises(ConfigError, match="the results there are of"):
        images(tmp_path / "in", tmp_path / "out")
    assert work.read("source.txt") == str(tmp_path / "other").encode()


def test_a_request_that_is_refused_claims_nothing(tmp_path: Path, images: Run) -> None:
    write_archive(tmp_path / "in", 2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MediaError, match="nothing is there"):
        images(tmp_path / "empty", tmp_path / "out")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="no CUDA device"):
            images(tmp_path / "other", tmp_path / "out", device="cuda")
    assert images(tmp_path / "in", tmp_path / "out")["images_processed"] == 11
    with pytest.raises(MediaError, match="nothing is there"):
        images(tmp_path / "empty", tmp_path / "out", overwrite=True)
    assert images(tmp_path / "in", tmp_path / "out")["images_processed"] == 0


def test_a_bucket_that_is_not_there_is_named(tmp_path: Path, images: Run, s3_url: str) -> None:
    write_archive(tmp_path / "in", 2)
    with pytest.raises(ConfigError, match="there is no such bucket; create it first"):
        images(tmp_path / "in", "s3://none-of-this-name/out")


def test_a_result_that_was_damaged_since_is_computed(tmp_path: Path, images: Run) -> None:
    write_archive(tmp_path / "in", 3)
    images(tmp_path / "in", tmp_path / "out")
    (tmp_path / "out/0/picture 0.png").write_bytes(b"damaged")
    (tmp_path / "out/a.png").unlink()
    for path in (tmp_path / "in").rglob("*.*"):
        os.utime(path, ns=(1, 1))
    assert images(tmp_path / "in", tmp_path / "out")["images_known"] == 7, "all but a.png: the other has a copy"
    images(tmp_path / "in", tmp_path / "whole")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.mark.parametrize("output", ["parquet", "webdataset"])
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: bytes(99) + data[99:], lambda data: b""])
def test_files_of_results_that_were_damaged_since_are_made_again(
    tmp_path: Path, images: Run, output: str, damage: Callable[[bytes], bytes]
) -> None:
    write_archive(tmp_path / "in", 3)
    images(tmp_path / "in", tmp_path / "out", output=output)
    for path in (tmp_path / "out/data").iterdir():
        path.write_bytes(damage(path.read_bytes()))
    for path in (tmp_path / "in").rglob("*.*"):
        os.utime(path, ns=(1, 1))
    images(tmp_path / "in", tmp_path / "out", output=output)
    images(tmp_path / "in", tmp_path / "whole", output=output)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.mark.parametrize("output", ["files", "parquet"])
def test_an_archive_that_is_again_as_it_was_is_done_again(tmp_path: Path, images: Run, output: str) -> None:
    write_archive(tmp_path / "in", 12)
    before = (tmp_path / "in/1/new.png", encoded(picture(500)))
    images(tmp_path / "in", tmp_path / "out", output=output, shard_rows=5)
    first = tree(tmp_path / "out")
    before[0].write_bytes(before[1])
    images(tmp_path / "in", tmp_path / "out", output=output, shard_rows=5)
    before[0].unlink()

    assert images(tmp_path / "in", tmp_path / "out", output=output, shard_rows=5)["removed"] == ["1/new.png"]
    after = tree(tmp_path / "out")
    if output == "files":
        assert after.pop("1/new.png")
    assert {name: sha for name, sha in after.items() if not name.startswith("_")} == {
        name: sha for name, sha in first.items() if not name.startswith("_")
    }


def test_rows_that_are_gone_are_made_again(tmp_path: Path, images: Run) -> None:
    write_archive(tmp_path / "in", 4)
    images(tmp_path / "in", tmp_path / "out")
    first = tree(tmp_path / "out")
    shutil.rmtree(tmp_path / "out/_swinir/rows")
    assert images(tmp_path / "in", tmp_path / "out")["images_processed"] > 0
    assert tree(tmp_path / "out") == first


def test_a_setting_that_was_asked_for_may_be_given_then(tmp_path: Path, images: Run) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(MediaError, match="nothing is there"):
        images(tmp_path / "in", tmp_path / "out")
    (tmp_path / "in/a.png").write_bytes(encoded(picture(1)))
    assert images(tmp_path / "in", tmp_path / "out", png_level=1)["counts"] == {"ok": 1}


def test_retry_failed_does_again_what_failed_and_nothing_else_does(tmp_path: Path, images: Run) -> None:
    write_archive(tmp_path / "in")
    first = images(tmp_path / "in", tmp_path / "out", shard_rows=5)
    assert images(tmp_path / "in", tmp_path / "out", shard_rows=5)["images_processed"] == 0
    again = images(tmp_path / "in", tmp_path / "out", shard_rows=5, retry_failed=True)
    assert 0 < again["images_processed"] < first["images"]
    assert again["counts"] == first["counts"]


@pytest.mark.parametrize(("output", "shard_rows"), [("files", 5), ("parquet", 5), ("webdataset", 100)])
def test_results_that_are_gone_are_made_again(tmp_path: Path, images: Run, output: str, shard_rows: int) -> None:
    write_archive(tmp_path / "in", 12)
    images(tmp_path / "in", tmp_path / "out", output=output, shard_rows=shard_rows)
    first = tree(tmp_path / "out")
    gone = next(row["output"] for row in rows(tmp_path / "out") if row["key"] == "a.png")
    (tmp_path / "out" / gone).unlink()
    report = images(tmp_path / "in", tmp_path / "out", output=output, shard_rows=shard_rows)
    assert report["images_processed"] > 0
    if output == "files":
        failed = sum(count for status, count in report["counts"].items() if status != "ok")
        assert report["images_processed"] <= 1 + failed
    assert tree(tmp_path / "out") == first


def test_results_of_another_source_are_not_replaced_unasked(tmp_path: Path, images: Run) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.png").write_bytes(encoded(picture(ord(name))))
    images(tmp_path / "a", tmp_path / "out", output="parquet")
    first = tree(tmp_path / "out")
    with pytest.raises(ConfigError, match=r"are of .*/a; choose another destination for .*/b, or pass --overwrite"):
        images(tmp_path / "b", tmp_path / "out", output="parquet")
    assert tree(tmp_path / "out") == first
    (tmp_path / "a").rename(tmp_path / "moved")
    report = images(tmp_path / "moved", tmp_path / "out", output="parquet", overwrite=True)
    assert (report["images_known"], report["images_processed"]) == (1, 0)
    with pytest.raises(ConfigError, match="are of"):
        images(tmp_path / "b", tmp_path / "out", output="parquet", fresh=True)
    assert images(tmp_path / "b", tmp_path / "out", output="parquet", overwrite=True)["removed"] == ["a.png"]


def test_results_reached_by_a_link_are_no_sources(tmp_path: Path, images: Run) -> None:
    write_archive(tmp_path / "in", 3)
    (tmp_path / "out").mkdir()
    (tmp_path / "in/latest").symlink_to(tmp_path / "out")
    (tmp_path / "in/one.png").symlink_to(tmp_path / "out/a.png")
    first = images(tmp_path / "in", tmp_path / "out")
    assert images(tmp_path / "in", tmp_path / "out", refuse_to_run)["images"] == first["images"] == 12


def test_a_damaged_index_is_made_again(tmp_path: Path, images: Run) -> None:
    write_archive(tmp_path / "in", 3)
    images(tmp_path / "in", tmp_path / "out")
    first = tree(tmp_path / "out")
    for damaged in (b"", b"PAR1 but no more"):
        (tmp_path / "out/_index.parquet").write_bytes(damaged)
        images(tmp_path / "in", tmp_path / "out")
        assert tree(tmp_path / "out") == first


def test_what_never_had_a_result_is_not_reported_as_gone(tmp_path: Path, images: Run) -> None:
    write_archive(tmp_path / "in", 3)
    images(tmp_path / "in", tmp_path / "out")
    for name in ("empty.png", "a.png"):
        (tmp_path / "in" / name).unlink()
    assert images(tmp_path / "in", tmp_path / "out")["removed"] == ["a.png"]


def test_copies_of_what_is_known_are_known(tmp_path: Path, images: Run) -> None:
    (tmp_path / "in").mkdir()
    for name in "abc":
        (tmp_path / f"in/{name}.png").write_bytes(encoded(picture(1)))
    images(tmp_path / "in", tmp_path / "out")
    (tmp_path / "in/new.png").write_bytes(encoded(picture(2)))
    report = images(tmp_path / "in", tmp_path / "out")
    assert (report["images_processed"], report["images_known"]) == (1, 3)


def test_a_hidden_file_that_was_named_is_done_once(tmp_path: Path, images: Run) -> None:
    (tmp_path / ".a.png").write_bytes(encoded(picture(1)))
    images(tmp_path / ".a.png", tmp_path / "out")
    assert images(tmp_path / ".a.png", tmp_path / "out", refuse_to_run)["counts"] == {"ok": 1}


def test_damaged_rows_are_made_again(tmp_path: Path, images: Run) -> None:
    write_archive(tmp_path / "in", 3)
    images(tmp_path / "in", tmp_path / "out")
    first = tree(tmp_path / "out")
    (path,) = (tmp_path / "out/_swinir/rows").iterdir()
    path.write_bytes(path.read_bytes()[:-20])
    images(tmp_path / "in", tmp_path / "out")
    assert tree(tmp_path / "out") == first


def test_links_among_the_sources_are_pictures_even_where_the_results_lie_around_them(tmp_path: Path, images: Run) -> None:
    (tmp_path / "big/in").mkdir(parents=True)
    (tmp_path / "big/in/a.png").write_bytes(encoded(picture(1)))
    (tmp_path / "big/in/b.png").symlink_to("a.png")
    assert images(tmp_path / "big/in", tmp_path / "big", overwrite=True)["counts"] == {"ok": 2}


def test_a_folder_whose_name_is_not_utf8_is_a_source_like_any_other(tmp_path: Path, images: Run) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/latin\xe9"))
    folder.mkdir()
    (folder / "a.png").write_bytes(encoded(picture(1)))
    assert images(folder, tmp_path / "out")["counts"] == {"ok": 1}
    assert images(folder, tmp_path / "out", refuse_to_run)["counts"] == {"ok": 1}
