"""Whole image jobs: every input ends as exactly one row, the second run does what is new, and the bytes are always the same."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline import local
from pipeline.config import ImagesConfig
from pipeline.dataset import workload
from pipeline.dataset.job import upscale_images
from pipeline.driver import Outcome, RunOptions
from pipeline.errors import ConfigError, MediaError, OutputError
from pipeline.storage import Store
from tests.pipeline.video.conftest import Listening
from tests.s3 import S3Server

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def images() -> Run:
    """An image job with nearest-x2, unless told otherwise."""

    def run(source: Path | str, destination: Path | str, run_units: Any = local.run_units, **settings: Any) -> dict[str, Any]:
        config = ImagesConfig(**{"model": "nearest-x2", **settings})
        return upscale_images(str(source), str(destination), config, run_units, Listening())

    return run


def picture(seed: int, size: tuple[int, int] = (12, 9), mode: str = "RGB") -> Image.Image:
    bands = len(mode) if mode in ("RGB", "RGBA") else 1
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], bands), np.uint8)
    return Image.fromarray(values[..., 0] if bands == 1 else values, mode)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    data = io.BytesIO()
    image.save(data, kind)
    return data.getvalue()


def write_archive(folder: Path, num: int = 20) -> dict[str, bytes]:
    """Pictures in folders, and every kind of bad file; what lies under each key."""
    files = {f"{i % 3}/picture {i}.png": encoded(picture(i, (8 + i % 4, 6))) for i in range(num)}
    files |= {
        "a.jpg": encoded(picture(100), "JPEG"),
        "a.png": encoded(picture(101)),
        "copy.png": files["0/picture 0.png"],
        "grau.png": encoded(picture(102, mode="L")),
        "ünï'%20\"x.png": encoded(picture(103, mode="RGBA")),
        "empty.png": b"",
        "cut.png": encoded(picture(104, (64, 64)))[:200],
        "notes.txt": b"not a picture",
        "film.mp4": b"not a picture either",
    }
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return files


def rows(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / "_index.parquet").to_pylist()


def tree(folder: Path) -> dict[str, str]:
    """The digest of every result; not of what only the run needs."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "_swinir" not in path.parts and path.name != "_report.json"
    }


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


def test_a_result_that_was_damaged_since_is_computed(tmp_path: Path, images: Run) -> None:
    write_archive(tmp_path / "in", 3)
    images(tmp_path / "in", tmp_path / "out")
    first = tree(tmp_path / "out")
    (tmp_path / "out/0/picture 0.png").write_bytes(b"damaged")
    (tmp_path / "out/a.png").unlink()
    for path in (tmp_path / "in").rglob("*.*"):
        os.utime(path, ns=(1, 1))
    assert images(tmp_path / "in", tmp_path / "out")["images_known"] == len(first) - 5
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
def test_originals_are_never_written_over(tmp_path: Path, images: Run, source: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(encoded(picture(1)))
    (tmp_path / "link").symlink_to(tmp_path / "in")
    with pytest.raises(ConfigError, match="where the source itself is"):
        images(tmp_path / source, tmp_path / "in", overwrite=True)
    assert (tmp_path / "in/a.png").read_bytes() == encoded(picture(1))


def test_a_setting_that_was_asked_for_may_be_given_then(tmp_path: Path, images: Run) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(MediaError, match="nothing is there"):
        images(tmp_path / "in", tmp_path / "out")
    (tmp_path / "in/a.png").write_bytes(encoded(picture(1)))
    assert images(tmp_path / "in", tmp_path / "out", png_level=1)["counts"] == {"ok": 1}


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


def test_retry_failed_does_again_what_failed_and_nothing_else_does(tmp_path: Path, images: Run) -> None:
    write_archive(tmp_path / "in")
    first = images(tmp_path / "in", tmp_path / "out", shard_rows=5)
    assert images(tmp_path / "in", tmp_path / "out", shard_rows=5)["images_processed"] == 0
    again = images(tmp_path / "in", tmp_path / "out", shard_rows=5, retry_failed=True)
    assert 0 < again["images_processed"] < first["images"]
    assert again["counts"] == first["counts"]


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
        for name, content in {"a.png": encoded(picture(1)), "a.json": b"{}", "b.png": b"", "c": b"", "d.mp4": b"film"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    (tmp_path / "in.tar").write_bytes(data.getvalue())
    images(tmp_path / "in.tar", tmp_path / "out", output="webdataset")
    found = {row["key"]: row["status"] for row in rows(tmp_path / "out")}
    assert found == {
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
