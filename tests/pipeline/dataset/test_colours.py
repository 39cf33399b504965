"""Colours that no profile states: kept by the results, which are PNG where no other format can say them."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from pipeline.dataset import png
from pipeline.dataset.colours import SRGB_CHROMATICITIES, chunk_of_avif
from pipeline.dataset.encoding import write_picture
from pipeline.dataset.images import read_picture
from pipeline.dataset.picture import Encoding
from tests.pipeline.dataset.files import ANY, drawn, saved

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
P3 = (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)


def numbers(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


def avif(primaries: int, transfer: int, *, alpha: bool = False, **options: object) -> bytes:
    """A file whose colour box, without or with one for alpha behind it, says so."""
    data = saved(Image.fromarray(drawn()).convert("RGBA" if alpha else "RGB"), "AVIF", **options)
    return data.replace(b"nclx\0\1\0\x0d", b"nclx" + struct.pack(">HH", primaries, transfer))


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
@pytest.mark.parametrize(
    ("stated", "ending"),
    [
        ({}, ""),
        ({b"sRGB": b"\0"}, ""),
        ({b"gAMA": numbers(45455), b"cHRM": numbers(*SRGB_CHROMATICITIES)}, ""),
        ({b"gAMA": numbers(45000), b"cHRM": numbers(31269, 32899, 63999, 33001, 30000, 60000, 15000, 5999)}, ""),
        ({b"cICP": bytes([1, 13, 0, 1])}, ""),
        ({b"cICP": bytes([1, 13, 0, 1]), b"gAMA": numbers(100000)}, ""),
        ({b"sRGB": b"\0", b"cHRM": numbers(*P3)}, ""),
        ({b"gAMA": numbers(100000)}, ".png"),
        ({b"gAMA": numbers(45455), b"cHRM": numbers(*P3)}, ".png"),
        ({b"gAMA": b"short"}, ".png"),
        ({b"cICP": bytes([12, 13, 0, 1])}, ".png"),
        ({b"cICP": bytes([1, 16, 0, 1])}, ".png"),
        ({b"cICP": bytes([1, 13, 0, 0])}, ".png"),
        ({b"cICP": b""}, ".png"),
        ({b"sRGB": b"\0", b"cICP": bytes([9, 18, 0, 1])}, ".png"),
    ],
)
def test_colours_that_only_png_can_state_stay_in_png(kind: str, stated: dict[bytes, bytes], ending: str) -> None:
    data = png.with_chunks(saved(drawn(), "PNG"), b"".join(png.chunk(*one) for one in stated.items()))
    picture = read_picture(data, ANY)
    result, found = write_picture(picture, picture.pixels, Encoding(kind))
    assert found == (ending or {"jpeg": ".jpg", "webp": ".webp"}[kind])
    if ending:
        assert stated.items() <= dict(png.chunks(result)).items()


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_a_profile_counts_more_than_gamma_and_less_than_code_points(kind: str) -> None:
    for name, content, ending in ((b"gAMA", numbers(100000), ""), (b"cICP", bytes([9, 16, 0, 1]), ".png")):
        data = png.with_chunks(saved(drawn(), "PNG", icc_profile=PROFILE), png.chunk(name, content))
        picture = read_picture(data, ANY)
        result, found = write_picture(picture, picture.pixels, Encoding(kind))
        assert found == (ending or {"jpeg": ".jpg", "webp": ".webp"}[kind])
        assert read_picture(result, ANY).metadata.icc == PROFILE


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize(("primaries", "transfer"), [(12, 13), (9, 16), (1, 18), (2, 16)])
def test_colours_of_avif_are_code_points_of_its_png(primaries: int, transfer: int, alpha: bool) -> None:
    picture = read_picture(avif(primaries, transfer, alpha=alpha), ANY)
    for kind in ("same", "jpeg", "webp", "png"):
        result, ending = write_picture(picture, picture.pixels, Encoding(kind))
        assert (ending, dict(png.chunks(result)).get(b"cICP")) == (".png", bytes([primaries, transfer, 0, 1]))
        assert np.array_equal(read_picture(result, ANY).pixels, picture.pixels)


@pytest.mark.parametrize(("primaries", "transfer"), [(1, 13), (1, 1), (1, 6), (2, 2), (999, 13)])
def test_avif_of_srgb_says_nothing_more(primaries: int, transfer: int) -> None:
    assert read_picture(avif(primaries, transfer), ANY).metadata.chunks == ()


def test_the_profile_of_avif_counts_more_than_its_box() -> None:
    picture = read_picture(avif(12, 13, icc_profile=PROFILE), ANY)
    assert (picture.metadata.icc, picture.metadata.chunks) == (PROFILE, ())


def test_the_colours_of_avif_are_those_of_its_primary_picture() -> None:
    def box(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I4s", 8 + len(content), kind) + content

    def file(ipma: bytes, pitm: bytes) -> bytes:
        codes = [box(b"colr", b"nclx" + struct.pack(">HHHB", *code, 0, 128)) for code in ((9, 16), (12, 13))]
        parts = box(b"ipco", b"".join(codes)) + box(b"ipma", ipma)
        meta = box(b"meta", bytes(4) + box(b"pitm", pitm) + box(b"iprp", parts))
        return struct.pack(">I4sQ", 1, b"free", 20) + b"long" + meta + struct.pack(">I4s", 0, b"mdat") + b"rest"

    short = bytes(4) + struct.pack(">I HBB HBB", 2, 7, 1, 1, 8, 1, 0x82)
    wide = b"\1\0\0\1" + struct.pack(">I IBH IBH", 2, 7, 1, 1, 70000, 1, 0x8002)
    assert chunk_of_avif(file(short, bytes(4) + struct.pack(">H", 8))) == (b"cICP", bytes([12, 13, 0, 1]))
    assert chunk_of_avif(file(short, bytes(4) + struct.pack(">H", 7))) == (b"cICP", bytes([9, 16, 0, 1]))
    assert chunk_of_avif(file(wide, b"\1\0\0\0" + struct.pack(">I", 70000))) == (b"cICP", bytes([12, 13, 0, 1]))
    assert chunk_of_avif(file(short, bytes(4) + struct.pack(">H", 9))) is None
    assert chunk_of_avif(b"") is None
