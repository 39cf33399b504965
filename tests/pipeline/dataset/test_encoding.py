"""Results as files: every format holds all of a picture or leaves it to PNG, and the bytes are always the same."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from pipeline.dataset import png
from pipeline.dataset.encoding import write_picture
from pipeline.dataset.images import read_picture
from pipeline.dataset.picture import Encoding, Metadata, Picture
from tests.pipeline.dataset.files import ANY, drawn, random_picture, saved


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_in_bands_and_pillows_hold_the_same_pixels(channels, dtype, large, monkeypatch) -> None:
    if large:
        monkeypatch.setattr("pipeline.dataset.encoding.PILLOW_BYTES", 0)
        monkeypatch.setattr("pipeline.dataset.png.BAND_BYTES", 500)
    pixels = random_picture(41, 30, channels, dtype)
    pixels[5:20] = pixels[4:5]
    for level in (0, 1, 9):
        picture = Picture(pixels, "PNG", Metadata())
        data, ending = write_picture(picture, pixels, Encoding(png_level=level))
        assert ending == ".png"
        assert np.array_equal(read_picture(data, ANY).pixels, pixels)
        assert data == write_picture(picture, pixels, Encoding(png_level=level))[0]


def test_what_a_format_cannot_hold_becomes_png() -> None:
    picture = Picture(random_picture(8, 8, 3, np.uint8), "JPEG", Metadata())
    endings = {
        name: write_picture(Picture(pixels, "JPEG", metadata), pixels, Encoding("jpeg"))[1]
        for name, pixels, metadata in [
            ("colour", picture.pixels, picture.metadata),
            ("alpha", random_picture(8, 8, 4, np.uint8), picture.metadata),
            ("deep", random_picture(8, 8, 1, np.uint16), picture.metadata),
            ("long", np.zeros((1, 65501, 1), np.uint8), picture.metadata),
            ("talkative", picture.pixels, Metadata(xmp=b"x" * 70000)),
        ]
    }
    assert endings == {"colour": ".jpg", "alpha": ".png", "deep": ".png", "long": ".png", "talkative": ".png"}
    grey = Metadata(icc=bytes(16) + b"GRAY")
    assert write_picture(Picture(picture.pixels[..., :1], "JPEG", grey), picture.pixels[..., :1], Encoding("webp"))[1] == ".png"
    assert write_picture(picture, np.zeros((1, 16384, 3), np.uint8), Encoding("webp"))[1] == ".png"


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_dots_an_inch_stay_in_every_format(kind: str) -> None:
    picture = Picture(drawn(), "JPEG", Metadata(dpi=(240.0, 300.5)))
    with Image.open(io.BytesIO(write_picture(picture, picture.pixels, Encoding(kind))[0])) as image:
        found = image.getexif()
        dpi = (found[0x011A], found[0x011B]) if kind == "webp" else image.info["dpi"]
        assert (found.get(0x0128), image.size) == (2 if kind == "webp" else None, drawn().shape[1::-1])
    assert [float(number) for number in dpi] == pytest.approx((240, 300.5), abs=0.6 if kind == "jpeg" else 0.02)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_aspect_of_pixels_without_a_unit_stays_in_jpeg_and_png(mode: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(drawn()).convert(mode)
    jpeg = bytearray(saved(image, "JPEG", exif=exif))
    jpeg[13:18] = struct.pack(">BHH", 0, 1, 2)
    aspect_png = png.with_chunks(saved(image, "PNG", exif=exif), png.chunk(*png.aspect_chunk(1, 2)))
    for data in (bytes(jpeg), aspect_png):
        picture = read_picture(data, ANY)
        wanted = (1, 2) if orientation == 1 else (2, 1)
        with Image.open(io.BytesIO(write_picture(picture, picture.pixels, Encoding("jpeg"))[0])) as result:
            assert (result.info["jfif_unit"], result.info["jfif_density"]) == (0, wanted)
        with Image.open(io.BytesIO(write_picture(picture, picture.pixels, Encoding("png"))[0])) as result:
            assert result.info["aspect"] == wanted


@pytest.mark.parametrize("density", [(0, 0), (1, 1), (0, 5), (70000, 5)])
def test_an_aspect_that_says_nothing_or_too_much_leaves_jpeg_square(density: tuple[int, int]) -> None:
    picture = Picture(drawn(), "JPEG", Metadata(chunks=(png.aspect_chunk(*density),)))
    with Image.open(io.BytesIO(write_picture(picture, picture.pixels, Encoding())[0])) as result:
        assert (result.info["jfif_unit"], result.info["jfif_density"]) == (0, (1, 1))


def test_jpeg_and_webp_are_what_was_asked_for() -> None:
    picture = Picture(drawn(64, 64), "BMP", Metadata())
    sizes = [len(write_picture(picture, picture.pixels, Encoding("jpeg", quality=q))[0]) for q in (50, 95)]
    assert sizes[0] < sizes[1]
    for subsampling, factors in (("444", (1, 1)), ("422", (2, 1)), ("420", (2, 2))):
        data = write_picture(picture, picture.pixels, Encoding("jpeg", subsampling=subsampling))[0]
        assert Image.open(io.BytesIO(data)).layer[0][1:3] == factors
    lossless = read_picture(saved(drawn(), "WEBP", lossless=True), ANY)
    again = read_picture(write_picture(lossless, lossless.pixels, Encoding())[0], ANY)
    assert np.array_equal(again.pixels, drawn())
