"""What an image job would do, told beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.config import ImagesConfig
from pipeline.dataset.preview import preview_images
from pipeline.errors import ConfigError, MediaError
from tests.pipeline.dataset.archives import Run, encoded, picture, write_archive
from tests.pipeline.video.conftest import Listening


def preview(source: Path, destination: Path, **settings: Any) -> tuple[int, int]:
    """How many pictures and shards there are to be done."""
    config = ImagesConfig(**{"model": "nearest-x2", "shard_rows": 5, **settings})
    found = preview_images(str(source), str(destination), config, Listening())
    return found["images_left"], found["shards_left"]


def test_all_is_to_be_done_where_nothing_is_and_nothing_is_written(tmp_path: Path, images: Run) -> None:
    num_items = len(write_archive(tmp_path / "in"))
    left = preview(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    report = images(tmp_path / "in", tmp_path / "out", shard_rows=5)
    assert left == (num_items, report["shards"]) == (report["images_processed"], report["shards"])


def test_of_results_that_are_there_only_what_changed_failed_or_is_gone(tmp_path: Path, images: Run) -> None:
    write_archive(tmp_path / "in", 40)
    images(tmp_path / "in", tmp_path / "out", shard_rows=5)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert preview(tmp_path / "in", tmp_path / "out") == (0, 0)
    assert 0 < preview(tmp_path / "in", tmp_path / "out", retry_failed=True)[1] < 8
    assert preview(tmp_path / "in", tmp_path / "out", fresh=True)[0] == 49
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before

    (tmp_path / "in/1/new.png").write_bytes(encoded(picture(500)))
    assert preview(tmp_path / "in", tmp_path / "out")[1] == 1
    (tmp_path / "out/a.png").unlink()
    pictures, shards = preview(tmp_path / "in", tmp_path / "out")
    assert shards == 2
    report = images(tmp_path / "in", tmp_path / "out", shard_rows=5)
    assert 0 < report["images_processed"] <= pictures


def test_what_a_job_refuses_a_preview_refuses(tmp_path: Path, images: Run) -> None:
    write_archive(tmp_path / "in", 2)
    images(tmp_path / "in", tmp_path / "out")
    with pytest.raises(ConfigError, match="holds another run"):
        preview(tmp_path / "in", tmp_path / "out", quality=50)
    write_archive(tmp_path / "other", 2)
    with pytest.raises(ConfigError, match="the results there are of"):
        preview(tmp_path / "other", tmp_path / "out")
    with pytest.raises(ConfigError, match="not made by this program"):
        preview(tmp_path / "in", tmp_path / "other")
    with pytest.raises(ConfigError, match="where the source itself is"):
        preview(tmp_path / "in", tmp_path / "in")
    with pytest.raises(ConfigError, match="create it first"):
        preview(tmp_path / "in", tmp_path / "not" / "there")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MediaError, match="nothing is there"):
        preview(tmp_path / "empty", tmp_path / "new")
    assert not (tmp_path / "new").exists()
