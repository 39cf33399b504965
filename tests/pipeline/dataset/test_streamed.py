"""A picture too large to be held with its result comes out as any other, whatever it is and wherever it goes."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline import local
from pipeline.config import ImagesConfig
from pipeline.dataset import deep, png, streamed, workload
from pipeline.dataset.job import upscale_images
from tests.pipeline.dataset.files import exif_block, noise, random_picture, saved
from tests.pipeline.video.conftest import Listening


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Pictures of every kind of channel, a damaged one and a copy."""
    folder = tmp_path / "in"
    folder.mkdir()
    files = {
        "rgb.png": saved(random_picture(70, 90, 3, np.uint8), "PNG", exif=exif_block().tobytes(), icc_profile=b"p" * 300),
        "copy.png": saved(random_picture(70, 90, 3, np.uint8), "PNG", exif=exif_block().tobytes(), icc_profile=b"p" * 300),
        "grey.png": saved(random_picture(70, 90, 1, np.uint8)[..., 0], "PNG"),
        "alpha.png": saved(random_picture(70, 90, 4, np.uint8), "PNG"),
        "deep.png": png.encode(noise(70, 90, 3), 6),
        "photo.jpg": saved(random_picture(70, 90, 3, np.uint8), "JPEG"),
        "page.webp": saved(random_picture(70, 90, 3, np.uint8), "WEBP", lossless=True),
        "cut.png": saved(random_picture(70, 90, 3, np.uint8), "PNG")[:900],
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def upscale(source: Path, destination: Path, **settings: Any) -> dict[str, dict[str, Any]]:
    config = ImagesConfig(**{"model": "bicubic-x2", "device": "cpu", "tile": 32, **settings})
    upscale_images(str(source), str(destination), config, local.run_units, Listening())
    return {row["key"]: row for row in pq.read_table(destination / "_index.parquet").to_pylist()}


def pixels_of(path: Path) -> np.ndarray:
    if path.name == "deep.png":
        return deep.decode(path.read_bytes(), "png")
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize("settings", [{}, {"scale": 1.3}], ids=["native", "other size"])
def test_f4_streamed_and_whole_results_are_equal(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    whole = upscale(source, tmp_path / "whole", **settings)
    num_streamed = []
    stream = workload.enlarge_to_file
    monkeypatch.setattr(workload, "enlarge_to_file", lambda *args: num_streamed.append(1) or stream(*args))
    monkeypatch.setattr(streamed, "PILLOW_BYTES", 1000)

    parts = upscale(source, tmp_path / "parts", **settings)

    assert len(num_streamed) == 6
    for key, row in whole.items():
        ignored = {
            "output_sha256",
            "output_bytes",
            "psnr_reduced_db",
            "colour_drift",
        }  # Pillow rounds the figures of small ones
        assert {**row, **dict.fromkeys(ignored)} == {**parts[key], **dict.fromkeys(ignored)}
        if row["status"] == "ok":
            assert np.array_equal(pixels_of(tmp_path / "whole" / row["output"]), pixels_of(tmp_path / "parts" / row["output"]))
            assert parts[key]["psnr_reduced_db"] == pytest.approx(row["psnr_reduced_db"], abs=0.2)
            assert parts[key]["colour_drift"] == pytest.approx(row["colour_drift"], abs=0.1)
            assert parts[key]["output_bytes"] == (tmp_path / "parts" / row["output"]).stat().st_size
    assert parts["cut.png"]["status"] == "decode_error"
    assert parts["copy.png"]["output_sha256"] == parts["rgb.png"]["output_sha256"]
    with Image.open(tmp_path / "parts/rgb.png") as image:
        assert image.info["icc_profile"] == b"p" * 300
        assert image.getexif()[0x0112] == 1


@pytest.mark.parametrize("output", ["parquet", "webdataset"])
def test_streamed_results_go_into_containers(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    monkeypatch.setattr(streamed, "PILLOW_BYTES", 1000)
    rows = upscale(source, tmp_path / "out", output=output)
    (file,) = (tmp_path / "out/data").iterdir()
    if output == "parquet":
        found = {row["key"]: row["image"]["bytes"] for row in pq.read_table(file).to_pylist()}
    else:
        with tarfile.open(file) as tar:
            found = {member.name: tar.extractfile(member).read() for member in tar if not member.name.endswith("json")}
    assert sorted(map(len, found.values())) == sorted(row["output_bytes"] for row in rows.values() if row["status"] == "ok")
    assert all(Image.open(io.BytesIO(data)).size for data in found.values())


def test_what_does_not_fit_a_parquet_value_is_a_row_that_says_so(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamed, "PILLOW_BYTES", 1000)
    monkeypatch.setattr(workload, "VALUE_BYTES", 40_000)
    rows = upscale(source, tmp_path / "out", output="parquet")
    assert (rows["deep.png"]["status"], rows["grey.png"]["status"]) == ("too_large", "ok")
    assert "use another --output" in rows["deep.png"]["error"]


def test_a_png_does_not_depend_on_how_many_rows_come_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png, "BAND_BYTES", 2000)
    pixels = random_picture(50, 40, 3, np.uint8)
    out = io.BytesIO()
    writer = png.Writer(out, pixels.shape, pixels.dtype, 3)
    for top, stop in ((0, 1), (1, 8), (8, 50)):
        writer.write(pixels[top:stop])
    writer.close()
    assert out.getvalue() == png.encode(pixels, 3)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(out.getvalue()))), pixels)
