"""The image job on real Ray: any number of workers and deaths, the same bytes, and a row for every input."""

from __future__ import annotations

import dataclasses
import faulthandler
import hashlib
import io
import os
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline import cluster, local
from pipeline.config import ImagesConfig
from pipeline.dataset import png
from pipeline.dataset.job import upscale_images
from pipeline.report import PlainListener
from pipeline.storage import Store
from tests.deadly import DeadlyShards
from tests.pipeline.dataset.archives import encoded, picture, tree, write_archive
from tests.pipeline.dataset.files import every_kind
from tests.s3 import ENVIRONMENT, S3Server, s3_server

ROOT = Path(__file__).resolve().parents[2]


def upscale(source: Path, destination: Path, run_units: Any = cluster.run_units, **settings: Any) -> dict[str, Any]:
    config = ImagesConfig(**{"model": "nearest-x2", "shard_rows": 8, **settings})
    return upscale_images(str(source), str(destination), config, run_units, PlainListener("images"))


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("output", ["files", "parquet"])
def test_b3_one_process_and_two_workers_give_the_same_bytes(tmp_path: Path, output: str) -> None:
    write_archive(tmp_path / "in", 60)
    here = upscale(tmp_path / "in", tmp_path / "here", local.run_units, output=output)
    there = upscale(tmp_path / "in", tmp_path / "there", device="cpu", workers=2, output=output)
    assert here["counts"] == there["counts"]
    assert tree(tmp_path / "here") == tree(tmp_path / "there")


def with_deadly(*keys: str) -> Any:
    """``cluster.run_units`` with pictures that kill their process."""

    def run(units: Any, workload: Any, ledger: Any, options: Any, on_event: Any) -> Any:
        fields = {field.name: getattr(workload, field.name) for field in dataclasses.fields(workload)}
        # Each death costs the start of a worker.
        options = dataclasses.replace(options, max_attempts=2, backoff_s=0.1)
        return cluster.run_units(units, DeadlyShards(**fields, deadly=keys), ledger, options, on_event)

    return run


@pytest.mark.usefixtures("ray_session")
def test_a_picture_that_kills_its_process_costs_one_row_and_no_neighbour(tmp_path: Path) -> None:
    write_archive(tmp_path / "in", 24)
    deadly = "1/picture 4.png"
    settings = {"device": "cpu", "workers": 2, "shard_rows": 12, "output": "parquet"}

    report = upscale(tmp_path / "in", tmp_path / "out", with_deadly(deadly), **settings)

    assert report["exit_code"] == 3
    rows = pq.read_table(tmp_path / "out/_index.parquet").to_pylist()
    assert [row["key"] for row in rows if row["status"] == "crashed"] == [deadly]
    assert len(rows) == len({row["key"] for row in rows}) == report["images"] == report["images_processed"] == 33
    # However the deadly one was found, the shard's others lie where they would without it.
    calm = upscale(tmp_path / "in", tmp_path / "calm", local.run_units, output="parquet", shard_rows=12)
    assert report["counts"] == {**calm["counts"], "ok": calm["counts"]["ok"] - 1, "crashed": 1}
    assert {row["key"]: row["output_sha256"] for row in rows if row["status"] == "ok"}.items() < {
        row["key"]: row["output_sha256"] for row in pq.read_table(tmp_path / "calm/_index.parquet").to_pylist()
    }.items()
    assert len(list((tmp_path / "out/data").iterdir())) == len(list((tmp_path / "calm/data").iterdir()))
    # It stays as it is until told otherwise, and then does no harm any more.
    assert upscale(tmp_path / "in", tmp_path / "out", **settings)["images_processed"] == 0
    again = upscale(tmp_path / "in", tmp_path / "out", local.run_units, output="parquet", shard_rows=12, retry_failed=True)
    assert again["counts"] == calm["counts"]
    assert tree(tmp_path / "out") == tree(tmp_path / "calm")


@pytest.fixture(scope="module")
def bucket_server() -> Iterator[S3Server]:
    with pytest.MonkeyPatch.context() as patch, s3_server() as server:
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": server.url}.items():
            patch.setenv(name, value)
        yield server


def pixels_of(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


@pytest.mark.slow
def test_10_000_images_in_a_bucket_two_workers_killed_twice_are_complete_and_correct(bucket_server: S3Server) -> None:
    faulthandler.dump_traceback_later(1500, exit=True)  # not pytest's five minutes
    url = bucket_server.bucket("archive")
    files = {f"in/{i % 10}/{i:05d}.png": encoded(picture(i, (6 + i % 5, 5))) for i in range(10_000)}
    kinds = {f"in/kinds/{name}": data for name, data in every_kind().items()}
    header = png.chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    bad = {
        "empty.png": b"",
        "text.jpg": b"no picture",
        "cut.png": encoded(picture(1, (40, 40)))[:150],
        "cut.jpg": encoded(picture(1, (90, 90)), "JPEG")[:1500],
        "flipped.png": bytes(byte ^ (i == 60) for i, byte in enumerate(encoded(picture(1, (40, 40))))),
        "bomb.png": png.SIGNATURE + header + png.chunk(b"IDAT", b"") + png.chunk(b"IEND", b""),
        "film.mp4": b"\0\0\0 ftypisom",
        "shard.tar": b"no tar",
        "rows.parquet": b"no parquet",
        "notes.txt": b"beside the pictures",
    }
    bucket_server.fill("archive", [*files.items(), *kinds.items(), *((f"in/bad/{name}", data) for name, data in bad.items())])
    command = [sys.executable, "-m", "jobs.cli", "images", f"{url}/in", f"{url}/out", "--model", "nearest-x2",
               "--workers", "2", "--device", "cpu", "--output", "parquet"]  # fmt: skip
    commits = Store(f"{url}/out/_swinir/commits")
    rng = np.random.default_rng()
    for before in (0, 15):
        job = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        enough = before + int(rng.integers(1, 12))
        deadline = time.monotonic() + 300
        while sum(1 for _ in commits.list()) < enough:
            assert job.poll() is None
            assert time.monotonic() < deadline
            time.sleep(rng.uniform(0.2, 1.5))
        os.killpg(job.pid, signal.SIGKILL)
        assert job.wait(30) == -signal.SIGKILL
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False, timeout=900)
    assert done.returncode == 3

    out = Store(f"{url}/out")
    rows = pq.read_table(io.BytesIO(out.read("_index.parquet"))).to_pylist()
    everything = {*files, *kinds, *(f"in/bad/{name}" for name in bad)}
    aside = {"in/bad/shard.tar": "in/bad/shard.tar/", "in/bad/rows.parquet": "in/bad/rows.parquet/"}
    assert [f"in/{row['key']}" for row in rows] == sorted(aside.get(key, key) for key in everything)
    status = {row["key"]: row["status"] for row in rows}
    assert {key: status[key] for key in status if key.startswith("bad/")} == {
        "bad/empty.png": "decode_error", "bad/text.jpg": "decode_error", "bad/cut.png": "decode_error",
        "bad/cut.jpg": "decode_error", "bad/flipped.png": "decode_error", "bad/bomb.png": "too_large",
        "bad/film.mp4": "unsupported", "bad/shard.tar/": "read_error", "bad/rows.parquet/": "read_error",
        "bad/notes.txt": "skipped",
    }  # fmt: skip
    assert {row["status"] for row in rows if not row["key"].startswith(("bad/", "kinds/"))} == {"ok"}
    counts = Counter(status.values())
    assert done.stdout.splitlines()[-1] == f"{len(rows)} images: " + ", ".join(f"{s} {n}" for s, n in sorted(counts.items()))
    digests = {row["key"]: row["output_sha256"] for row in rows}
    for name in sorted({row["output"] for row in rows if row["output"]}):
        for row in pq.read_table(io.BytesIO(out.read(name))).to_pylist():
            data = row["image"]["bytes"]
            assert hashlib.sha256(data).hexdigest() == digests[row["key"]]
            if f"in/{row['key']}" in files:
                assert np.array_equal(pixels_of(data), pixels_of(files[f"in/{row['key']}"]).repeat(2, 0).repeat(2, 1))

    # One process that nobody killed writes the same.
    config = ImagesConfig(model="nearest-x2", device="cpu", output="parquet")
    upscale_images(f"{url}/in", f"{url}/calm", config, local.run_units, PlainListener("images"))
    calm = Store(f"{url}/calm")
    names = sorted(name for name in out.list() if not name.startswith(("_swinir/", "_report")))
    assert names == sorted(name for name in calm.list() if not name.startswith(("_swinir/", "_report")))
    assert [name for name in names if out.read(name) != calm.read(name)] == []
