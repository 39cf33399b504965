"""Whole image jobs: every input ends as exactly one row, and the bytes are always the same."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline import local
from pipeline.dataset import workload
from pipeline.driver import RunOptions
from pipeline.errors import ConfigError, MediaError, OutputError
from pipeline.storage import Store
from tests.pipeline.dataset.archives import Run, encoded, picture, rows, tree, write_archive
from tests.s3 import S3Server


def test_every_input_ends_as_exactly_one_row(tmp_path: Path, images: Run) -> None:
    files = write_archive(tmp_path / "in")
    report = images(tmp_path / "in", tmp_path / "out", shard_rows=5)

    index = {row["key"]: row for row in rows(tmp_path / "out")}
    assert list(index) == sorted(files)
    assert len(rows(tmp_path / "out")) == len(files)
    assert report["exit_code"] == 3
    assert sum(report["counts"].values()) == len(files)
    assert {key: row["status"] for key, row in index.items() if row["status"] != "ok"} == {
        "cut.png": "decode_error", "empty.png": "decode_error", "film.mp4": "decode_error", "notes.txt": "skipped",
    }  # fmt: skip
    assert all(row["error"] for row in index.values() if row["status"] != "ok")
    for key, row in index.items():
        assert row["source_sha256"] == hashlib.sha256(files[key]).hexdigest()
        if row["status"] == "ok":
            result = (tmp_path / "out" / row["output"]).read_bytes()
            assert row["output_sha256"] == hashlib.sha256(result).hexdigest()
            before, after = Image.open(io.BytesIO(files[key])), Image.open(io.BytesIO(result))
            assert after.mode == before.mode
            assert (row["output_width"], row["output_height"]) == after.size == (2 * before.width, 2 * before.height)
            if key.endswith("png"):
                assert np.array_equal(np.asarray(after), np.asarray(before).repeat(2, 0).repeat(2, 1))
    assert index["a.jpg"]["output"] != index["a.png"]["output"]


def test_equal_results_are_files_of_their_own(tmp_path: Path, images: Run) -> None:
    (tmp_path / "in").mkdir()
    for name in "abc":
        (tmp_path / f"in/{name}.png").write_bytes(encoded(picture(1)))
    images(tmp_path / "in", tmp_path / "out")
    assert [(tmp_path / f"out/{name}.png").stat().st_nlink for name in "abc"] == [1, 1, 1]


def test_a_picture_beside_a_folder_of_its_name(tmp_path: Path, images: Run) -> None:
    (tmp_path / "in/scan.image.png").mkdir(parents=True)
    (tmp_path / "in/scan").write_bytes(encoded(picture(1)))
    (tmp_path / "in/scan.image.png/b.png").write_bytes(encoded(picture(2)))
    assert images(tmp_path / "in", tmp_path / "out")["counts"] == {"ok": 2}


@pytest.mark.parametrize("source", ["in/*.png", "in/a.png", "in", "link"])
@pytest.mark.parametrize("destination", ["in", "link"])
def test_originals_are_never_written_over(tmp_path: Path, images: Run, source: str, destination: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(encoded(picture(1)))
    (tmp_path / "link").symlink_to(tmp_path / "in")
    with pytest.raises(ConfigError, match="where the source itself is"):
        images(tmp_path / source, tmp_path / destination, overwrite=True)
    assert (tmp_path / "in/a.png").read_bytes() == encoded(picture(1))


def test_b1_a_run_that_dies_anywhere_goes_on_and_gives_the_same_bytes(tmp_path: Path, images: Run) -> None:
    write_archive(tmp_path / "in")
    images(tmp_path / "in", tmp_path / "whole", output="parquet", shard_rows=5)

    class Killed(BaseException):
        pass

    for allowed in (1, 2):
        seen = 0

        def stop_at_commit(units: Any, work: Any, ledger: Any, options: Any, on_event: Any, allowed: int = allowed) -> Any:
            def listen(event: Any) -> None:
                nonlocal seen
                seen += event.kind == "committed"
                if seen >= allowed:
                    raise Killed
                on_event(event)

            return local.run_units(units, work, ledger, options, listen)

        with pytest.raises(Killed):
            images(tmp_path / "in", tmp_path / "out", stop_at_commit, output="parquet", shard_rows=5)
        assert not (tmp_path / "out/_index.parquet").exists()

    report = images(tmp_path / "in", tmp_path / "out", output="parquet", shard_rows=5)
    assert report["images_processed"] < report["images"]
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_equal_bytes_are_computed_once_in_a_shard(tmp_path: Path, images: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    for i in range(6):
        (tmp_path / f"in/{i}.png").write_bytes(encoded(picture(i // 3)))
    decoded: list[int] = []
    read = workload.read_picture
    monkeypatch.setattr(workload, "read_picture", lambda data, limits: decoded.append(len(data)) or read(data, limits))

    images(tmp_path / "in", tmp_path / "out", shard_rows=1000)

    assert len(decoded) == 2
    assert [row["status"] for row in rows(tmp_path / "out")] == ["ok"] * 6
    assert len({row["output_sha256"] for row in rows(tmp_path / "out")}) == 2


def test_from_bucket_to_bucket(tmp_path: Path, images: Run, s3_url: str) -> None:
    files = write_archive(tmp_path / "in")
    store = Store(f"{s3_url}/in")
    for key, data in files.items():
        store.write(key, data)
    report = images(f"{s3_url}/in", f"{s3_url}/out", shard_rows=5)
    images(tmp_path / "in", tmp_path / "out", shard_rows=5)
    out = Store(f"{s3_url}/out")
    assert report["images"] == len(files)
    for key, digest in tree(tmp_path / "out").items():
        if not key.startswith(("_", "README")):
            assert hashlib.sha256(out.read(key)).hexdigest() == digest


def test_everything_in_a_tar_but_fields_of_samples_is_a_row(tmp_path: Path, images: Run) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in {
            "a.png": encoded(picture(1)), "a.json": b"{}", "b.png": b"", "c": b"", "d.mp4": b"film",
            "../e.png": encoded(picture(2)), "x/../f.png": encoded(picture(3)),
        }.items():  # fmt: skip
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    (tmp_path / "in.tar").write_bytes(data.getvalue())
    images(tmp_path / "in.tar", tmp_path / "out", output="webdataset")
    found = {row["key"]: row["status"] for row in rows(tmp_path / "out")}
    assert found == {
        "in.tar/../e.png": "ok", "in.tar/x/../f.png": "ok",
        "in.tar/a.png": "ok", "in.tar/b.png": "decode_error", "in.tar/c": "skipped", "in.tar/d.mp4": "skipped",
    }  # fmt: skip


@pytest.mark.parametrize("broken", ["in", "out"])
def test_storage_that_fails_costs_no_picture_its_row(
    tmp_path: Path, images: Run, s3_url: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    monkeypatch.setattr("pipeline.retry.DELAYS_S", (0.01,))
    monkeypatch.setattr("pipeline.dataset.job.RunOptions", partial(RunOptions, backoff_s=0.01))
    store = Store(f"{s3_url}/in")
    files = write_archive(tmp_path / "in")
    for name, data in files.items():
        store.write(name, data)
    method, one = {"in": "GET", "out": "PUT"}[broken], f"/{broken}/1/picture 19.png"
    s3.rule = lambda verb, path: 503 if verb == method and path.endswith(one) else None
    with pytest.raises(
        OutputError, match=r"^1 of 10 shards are not done: cannot .*: \[Errno 16\] busy; the others are kept, and the same"
    ):
        images(f"{s3_url}/in", f"{s3_url}/out", shard_rows=5)
    s3.rule = None
    report = images(f"{s3_url}/in", f"{s3_url}/out", shard_rows=5)
    assert (report["counts"].get("crashed"), report["images"]) == (None, len(files))
    assert report["images_processed"] <= 5


def test_sizes_are_skipped_or_reached_as_told(tmp_path: Path, images: Run) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/large.png").write_bytes(encoded(picture(1, (40, 30))))
    (tmp_path / "in/small.png").write_bytes(encoded(picture(2, (20, 10))))
    report = images(tmp_path / "in", tmp_path / "out", min_side=30)
    assert report["counts"] == {"ok": 1, "skipped": 1}
    assert report["exit_code"] == 0
    images(tmp_path / "in", tmp_path / "long", target_long_side=60)
    assert [(row["output_width"], row["output_height"]) for row in rows(tmp_path / "long")] == [(60, 45), (60, 30)]


def test_requests_that_cannot_be_met_end_before_any_work(tmp_path: Path, images: Run) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(MediaError, match="nothing is there"):
        images(tmp_path / "in", tmp_path / "out")
    write_archive(tmp_path / "in", 2)
    with pytest.raises(ConfigError, match="where the source itself is"):
        images(tmp_path / "in", tmp_path / "in")
    with pytest.raises(ConfigError, match="the source is '', which names nothing"):
        images("", tmp_path / "out")
    with pytest.raises(ConfigError, match="the destination is '', which names nothing"):
        images(tmp_path / "in", "")
    with pytest.raises(ConfigError, match=r"the destination is 'a\\x00b', which names nothing"):
        images(tmp_path / "in", "a\0b")
    with pytest.raises(ConfigError, match="create it first"):
        images(tmp_path / "in", tmp_path / "no/where")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not made by this program"):
        images(tmp_path / "in", tmp_path / "full")
    assert sorted(os.listdir(tmp_path / "full")) in (["mine.txt"], ["_swinir", "mine.txt"])
    images(tmp_path / "in", tmp_path / "full", overwrite=True)
    assert (tmp_path / "full/mine.txt").read_text() == "mine"
    with pytest.raises(ConfigError, match=r"settings\.format was \"same\" and is now \"png\""):
        images(tmp_path / "in", tmp_path / "full", format="png")


def test_the_report_says_what_was_done(tmp_path: Path, images: Run) -> None:
    write_archive(tmp_path / "in", 3)
    report = images(tmp_path / "in", tmp_path / "out")
    assert report == json.loads((tmp_path / "out/_report.json").read_text())
    assert (report["model"], report["images"]) == ("nearest-x2", 12)


def test_an_ensemble_is_another_job_and_gives_the_bytes_of_what_turns_with_its_input(tmp_path: Path, images: Run) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (13, 20, 3), np.uint8)).save(tmp_path / "in" / "a.png")
    done = [images(tmp_path / "in", tmp_path / f"out{size}", ensemble=size, fresh=True) for size in (1, 8)]
    assert [report["images_processed"] for report in done] == [1, 1]
    assert (tmp_path / "out1" / "a.png").read_bytes() == (tmp_path / "out8" / "a.png").read_bytes()
    assert "| `ensemble` | `8` |" in (tmp_path / "out8" / "README.md").read_text(encoding="utf-8")
    with pytest.raises(ConfigError):
        images(tmp_path / "in", tmp_path / "out8", ensemble=1)
