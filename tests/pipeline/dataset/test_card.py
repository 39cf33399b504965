"""The card of a finished folder: true counts, code that runs as it stands, and pictures beside what became of them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from pipeline.config import ImagesConfig
from pipeline.dataset.card import write_card
from pipeline.dataset.index import Row, read_rows, write_rows
from pipeline.dataset.outputs import open_output
from pipeline.dataset.shards import write_list
from pipeline.dataset.sheet import CELL, MAX_PAIRS, as_rgb, choose, draw, pair
from pipeline.dataset.sources import open_source
from pipeline.dataset.workload import ShardWorkload
from pipeline.storage import Store
from swinir.spec import load_spec

KINDS = ["files", "parquet", "webdataset"]
UNIT = "0123456789abcdef"


def encoded(pixels: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)


def finished(folder: Path, kind: str, num: int = 15) -> Store:
    """An archive of ``num`` pictures and a damaged one, doubled by hand, with its index and card; the destination."""
    for i in range(num):
        path = folder / "in" / f"{i % 3}" / f"bild | `{i:02d}`.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(pixels(i)))
    (folder / "in").mkdir(parents=True, exist_ok=True)
    (folder / "in" / "zz.png").write_bytes(b"damaged")
    config = ImagesConfig(model="nearest-x2", output=kind)
    out, work = Store(str(folder / "out")), Store(str(folder / "work"))
    source = open_source(str(folder / "in"))
    items = list(source.items())
    shard = Path(write_list(work, items)).stem
    rows = []
    with open_output(kind, out, UNIT, folder) as output:
        for i, item in enumerate(items):
            data = source.read(item)
            row = Row(key=item.key, shard=shard, row=i, source_sha256=hashlib.sha256(data).hexdigest(), model="nearest-x2")
            if data == b"damaged":
                rows.append(replace(row, status="decode_error", error="not a picture"))
                continue
            large = np.asarray(Image.open(io.BytesIO(data))).repeat(2, 0).repeat(2, 1)
            row = replace(
                row, status="ok", width=8, height=6, output_width=16, output_height=12, format="PNG", output_format="png"
            )
            rows.append(replace(row, output=output.add(row, encoded(large))))
        output.close()
    write_rows(folder / "index.parquet", rows)
    out.upload(folder / "index.parquet", "_index.parquet")
    workload = ShardWorkload(str(folder / "in"), config, load_spec("nearest-x2"), work, out)
    write_card(out, folder / "index.parquet", workload, Counter(row.status for row in rows))
    return out


def code_of(card: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card, re.DOTALL)


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(code, names)
    return names


@pytest.mark.parametrize("kind", KINDS)
def test_the_card_says_what_became_of_the_inputs(kind: str, tmp_path: Path) -> None:
    out = finished(tmp_path, kind)
    card = out.read("README.md").decode()
    assert "| `ok` | 15 | upscaled |" in card
    assert "| `decode_error` | 1 | damaged, or not a picture |" in card
    assert "`nearest-x2`, x2" in card
    assert f"| `output` | `{kind}` |" in card
    assert str(tmp_path) not in card
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["configs"][0]["data_files"][0]["split"] == "train"
    assert Image.open(io.BytesIO(out.read("__card__/pairs.png"))).size == (16 + 2 * (2 * CELL + 4 + 16), 16 + 6 * (CELL + 16))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_folder_has_the_same_card(kind: str, tmp_path: Path) -> None:
    first, second = (finished(tmp_path / name, kind) for name in "ab")
    for key in ("README.md", "__card__/pairs.png"):
        assert first.read(key) == second.read(key)


@pytest.mark.parametrize("kind", KINDS)
def test_the_folder_opens_as_a_dataset_with_the_pictures_and_nothing_else(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    finished(tmp_path, kind)
    found = datasets.load_dataset(str(tmp_path / "out"), split="train")
    column = {"files": "image", "parquet": "image", "webdataset": "png"}[kind]
    assert found.features[column] == datasets.Image()
    assert kind != "files" or found.column_names == ["image"]
    expected = [pixels(i).repeat(2, 0).repeat(2, 1).tobytes() for i in range(15)]
    assert sorted(np.asarray(sample[column]).tobytes() for sample in found) == sorted(expected)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves files open
@pytest.mark.parametrize("kind", KINDS)
def test_the_code_on_the_card_runs(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    for name in ("webdataset", "duckdb", "pandas"):
        pytest.importorskip(name)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    index, pictures = code_of(finished(tmp_path, kind).read("README.md").decode())
    monkeypatch.chdir(tmp_path / "out")
    run(index)
    samples = list(run(pictures)["dataset"])
    assert len(samples) == 15
    assert {sample["image"].size for sample in samples} == {(16, 12)}


def test_a_folder_without_results_has_a_card_without_pictures(tmp_path: Path) -> None:
    out = finished(tmp_path, "parquet", num=0)
    card = out.read("README.md").decode()
    assert "__card__" not in card
    assert "configs" not in card
    assert sorted(out.list()) == ["README.md", "_index.parquet"]


def test_pictures_that_have_changed_since_are_not_shown(tmp_path: Path) -> None:
    out = finished(tmp_path, "files", num=3)
    rows = list(read_rows(tmp_path / "index.parquet"))
    out.delete(rows[0].output)
    out.write(rows[1].output, b"damaged")
    workload = ShardWorkload(
        str(tmp_path / "in"), ImagesConfig(model="nearest-x2"), load_spec("nearest-x2"), Store(str(tmp_path / "work")), out
    )
    write_card(out, tmp_path / "index.parquet", workload, {"ok": 3})
    assert Image.open(io.BytesIO(out.read("__card__/pairs.png"))).size == (16 + 2 * CELL + 4 + 16, 16 + CELL + 16)
    assert rows[2].key.rpartition("/")[2].replace("|", "\\|") in out.read("README.md").decode()


def test_of_many_pictures_twelve_are_shown_each_content_once(tmp_path: Path) -> None:
    digests = [hashlib.sha256(bytes([i % 40])).hexdigest() for i in range(200)]
    rows = [
        Row(
            key=f"{i:03d}", row=i, status="ok" if i % 7 else "skipped", source_sha256=digests[i],
            output_width=1 << 16 if i % 5 == 0 else 10, output_height=1 << 16, output="x.png",
        )
        for i in range(200)
    ]  # fmt: skip
    write_rows(tmp_path / "index.parquet", rows)
    wanted = [row for row in rows if row.status == "ok" and row.output_width == 10]
    found = choose(tmp_path / "index.parquet")
    assert len(found) == MAX_PAIRS
    assert [row.source_sha256 for row in sorted(found, key=lambda row: row.source_sha256)] == sorted(
        {row.source_sha256 for row in wanted}
    )[:MAX_PAIRS]
    assert [row.key for row in found] == sorted(row.key for row in found)


@pytest.mark.parametrize("size", [(6, 8), (90, 400), (300, 300)])
def test_both_sides_of_a_pair_show_the_same_part(size: tuple[int, int]) -> None:
    height, width = size
    y, x = np.mgrid[:height, :width]
    before = np.stack([y * 255 / height, x * 255 / width, y * 0 + 90], axis=2).round().astype(np.uint8)
    after = np.asarray(Image.fromarray(before).resize((2 * width, 2 * height), Image.Resampling.BICUBIC))
    cells = pair(before, after).astype(int)
    assert cells.shape == (CELL, 2 * CELL + 4, 3)
    assert np.abs(cells[:, :CELL] - cells[:, CELL + 4 :]).max() <= 1


@pytest.mark.parametrize("num_channels", [1, 2, 3, 4])
def test_every_kind_of_picture_can_be_shown(num_channels: int) -> None:
    eight = np.random.default_rng(num_channels).integers(0, 256, (5, 7, num_channels), np.uint8)
    shown = as_rgb(eight)
    assert (shown.shape, shown.dtype) == ((5, 7, 3), np.uint8)
    assert np.array_equal(as_rgb(eight.astype(np.uint16) * 257), shown)
    if num_channels == 3:
        assert np.array_equal(shown, eight)
    if num_channels in (2, 4):
        eight[..., -1] = 0
        assert (as_rgb(eight) == 192).all()


def test_a_sheet_has_a_place_for_each_pair() -> None:
    for num in (1, 2, 5, 12):
        pairs = [np.full((CELL, 2 * CELL + 4, 3), i, np.uint8) for i in range(num)]
        sheet = np.asarray(Image.open(io.BytesIO(draw(pairs))))
        assert set(range(num)) <= set(np.unique(sheet))
