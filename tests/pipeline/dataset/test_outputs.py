"""What is written: files, Parquet and WebDataset, whole, with the same bytes and names every time."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline import retry
from pipeline.dataset.containers import ParquetContainer, TarContainer
from pipeline.dataset.index import Row
from pipeline.dataset.names import sample_name
from pipeline.dataset.outputs import PackedOutput, open_output, read_output, remove_strays
from pipeline.errors import OutputError
from pipeline.storage import Store
from tests.s3 import S3Server

UNIT = "0123456789abcdef"
KEYS = ["Ein Tag/100% 'x' \"y\".png", "a.b/c.d.jpg", "a.jpg", "a.png", "t.parquet/000000004", "東京/ü.png"]


def png(seed: int, size: tuple[int, int] = (10, 6)) -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)).save(data, "PNG")
    return data.getvalue()


def row(key: str, number: int = 0) -> Row:
    return Row(
        key=key, row=number, status="ok", source_sha256=f"{number:064x}", output_format="png",
        width=5, height=3, output_width=10, output_height=6,
    )  # fmt: skip


def write(kind: str, out: Store, scratch: Path, keys: list[str] = KEYS) -> tuple[list[str], list[dict[str, Any]]]:
    with open_output(kind, out, UNIT, scratch) as output:
        paths = [output.add(row(key, i), png(i)) for i, key in enumerate(keys)]
        return paths, output.close()


def contents(out: Store) -> dict[str, bytes]:
    return {key: out.read(key) for key in out.list()}


@pytest.mark.parametrize("kind", ["files", "parquet", "webdataset"])
def test_f3_a_unit_done_twice_leaves_the_same_names_and_bytes(kind: str, store_url: str, tmp_path: Path) -> None:
    out = Store(store_url)
    once = write(kind, out, tmp_path), contents(out)
    assert (write(kind, out, tmp_path), contents(out)) == once
    (paths, files), stored = once
    assert set(paths) == set(stored)
    for file in files:
        data = stored[file["key"]]
        assert (file["size_bytes"], file["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert sum(file["num_rows"] for file in files) == (0 if kind == "files" else len(KEYS))
    for i, (key, path) in enumerate(zip(KEYS, paths, strict=True)):
        assert read_output(out, Row(key=key, row=i, output=path, output_format="png")) == png(i)
    assert not [path for path in tmp_path.iterdir() if path.is_file()], "scratch files are left over"


@pytest.mark.parametrize("kind", ["parquet", "webdataset"])
def test_f3_of_a_unit_that_stops_half_way_nothing_is_seen(kind: str, tmp_path: Path) -> None:
    out = Store(str(tmp_path / "out"))
    with open_output(kind, out, UNIT, tmp_path) as output:
        output.add(row("a.png"), png(0))
    assert contents(out) == {}


@pytest.mark.parametrize("kind", ["files", "parquet", "webdataset"])
def test_f3_an_upload_that_fails_fails_the_unit(
    kind: str, s3: S3Server, s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "DELAYS_S", (0.01,))
    s3.rule = lambda method, path: 503 if method in ("PUT", "POST") else None
    with pytest.raises(OutputError, match="cannot write"):
        write(kind, Store(s3_url), tmp_path)


def test_f1_files_lie_where_their_sources_lay(tmp_path: Path) -> None:
    paths, files = write("files", Store(str(tmp_path / "out")), tmp_path)
    assert paths == [
        "Ein Tag/100% 'x' \"y\".png", "a.b/c.d.jpg.png", "a.jpg.png", "a.png", "t.parquet/000000004.png", "東京/ü.png",
    ]  # fmt: skip
    assert files == []
    assert [(tmp_path / "out" / path).read_bytes() for path in paths] == [png(i) for i in range(len(KEYS))]


@pytest.mark.parametrize(("ending", "container"), [(".parquet", ParquetContainer), (".tar", TarContainer)])
def test_no_file_of_pictures_grows_over_the_limit(ending: str, container: Any, tmp_path: Path) -> None:
    out, limit = Store(str(tmp_path / "out")), 60_000
    data = [bytes([i]) * (80_000 if i == 5 else 9_000) for i in range(20)]
    with PackedOutput(out, f"data/{UNIT}", ending, container, tmp_path, limit) as output:
        paths = [output.add(row(f"{i:02d}.png", i), data[i]) for i in range(20)]
        files = output.close()
    assert [file["key"] for file in files] == [f"data/{UNIT}-{i:03d}{ending}" for i in range(len(files))] == sorted(set(paths))
    large = [file for file in files if file["size_bytes"] > limit]
    assert [(file["num_rows"], file["size_bytes"] > 80_000) for file in large] == [(1, True)], "but for a large picture"
    for i, path in enumerate(paths):
        assert read_output(out, Row(key=f"{i:02d}.png", row=i, output=path, output_format="png")) == data[i]


def test_row_groups_stay_under_their_limit_and_pages_can_be_found(tmp_path: Path) -> None:
    out = Store(str(tmp_path / "out"))
    with PackedOutput(out, "data/x", ".parquet", partial(ParquetContainer, row_group_bytes=50_000), tmp_path) as output:
        for i in range(30):
            output.add(row(f"{i:02d}.png", i), bytes([i]) * 9_000)
        output.close()
    metadata = pq.read_metadata(tmp_path / "out/data/x-000.parquet")
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    assert [group.num_rows for group in groups] == [5] * 6
    assert all(group.total_byte_size < 60_000 for group in groups)
    assert all(group.column(i).has_offset_index for group in groups for i in range(group.num_columns))


@pytest.mark.parametrize("kind", ["parquet", "webdataset"])
def test_memory_is_bounded_however_much_a_unit_holds(kind: str, tmp_path: Path) -> None:
    out, data = Store(str(tmp_path / "out")), bytes(1 << 20)
    peaks = []
    for num in (4, 40):
        with open_output(kind, out, UNIT, tmp_path) as output:
            if isinstance(output, PackedOutput) and kind == "parquet":
                output._open_container = partial(ParquetContainer, row_group_bytes=2 << 20)
            tracemalloc.start()
            for i in range(num):
                output.add(row(f"{i}.png", i), bytes(bytearray(data)))
            output.close()
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_files_of_pictures_that_no_unit_names_are_removed_and_nothing_else(store_url: str, tmp_path: Path) -> None:
    out = Store(store_url)
    _, (file,) = write("parquet", out, tmp_path)
    stray, others = "data/fedcba9876543210-001.tar", ["data/a.png", "data/x-000.parquet", f"{UNIT}-000.tar"]
    for key in (stray, *others):
        out.write(key, b"")
    assert remove_strays(out, {file["key"]}) == [stray]
    assert sorted(out.list()) == sorted([file["key"], *others])


def test_parquet_opens_with_pyarrow_dataset(tmp_path: Path) -> None:
    write("parquet", Store(str(tmp_path / "out")), tmp_path)
    found = pyarrow.dataset.dataset(tmp_path / "out/data").to_table()
    assert found["key"].to_pylist() == KEYS
    assert [image["bytes"] for image in found["image"].to_pylist()] == [png(i) for i in range(len(KEYS))]
    assert found["image"][2].as_py()["path"] == "a.jpg.png"
    features = json.loads(found.schema.metadata[b"huggingface"])["info"]["features"]
    assert features.keys() == set(found.column_names)
    assert features["image"] == {"_type": "Image"}


def test_parquet_opens_with_datasets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    write("parquet", Store(str(tmp_path / "out")), tmp_path)
    files, cache = str(tmp_path / "out/data/*.parquet"), str(tmp_path / "cache")
    for found in (
        datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=cache),
        datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=cache, streaming=True),
        datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=cache),
    ):
        assert found.features["image"] == datasets.Image()
        samples = list(found)
        assert [sample["key"] for sample in samples] == KEYS
        for i, sample in enumerate(samples):
            assert np.array_equal(sample["image"], Image.open(io.BytesIO(png(i))))
            assert (sample["width"], sample["height"]) == sample["image"].size


def test_tars_hold_pairs_without_a_trace_of_time_or_owner(tmp_path: Path) -> None:
    write("webdataset", Store(str(tmp_path / "out")), tmp_path)
    with tarfile.open(tmp_path / f"out/data/{UNIT}-000.tar") as tar:
        members = tar.getmembers()
    assert {(member.mtime, member.uid, member.gid, member.uname, member.mode) for member in members} == {(0, 0, 0, "", 0o644)}
    assert [member.name for member in members] == [f"{sample_name(key)}{end}" for key in KEYS for end in (".png", ".json")]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves files open
def test_tars_open_with_webdataset_and_datasets(tmp_path: Path) -> None:
    webdataset, datasets = pytest.importorskip("webdataset"), pytest.importorskip("datasets")
    write("webdataset", Store(str(tmp_path / "out")), tmp_path)
    path = str(tmp_path / f"out/data/{UNIT}-000.tar")
    samples = list(webdataset.WebDataset(path, shardshuffle=False).decode("rgb8"))
    assert [sample["json"]["key"] for sample in samples] == KEYS
    assert [sample["__key__"] for sample in samples] == [sample_name(key) for key in KEYS]
    for i, sample in enumerate(samples):
        assert np.array_equal(sample["png"], Image.open(io.BytesIO(png(i))))
        assert sample["json"]["source_width"] == 5
    found = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert [sample["json"]["key"] for sample in found] == KEYS
    assert np.array_equal(found[3]["png"], Image.open(io.BytesIO(png(3))))
