"""Animations with ``--animated each``: every frame larger, shown as long as before."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageSequence

from pipeline import local
from pipeline.config import ImagesConfig
from pipeline.dataset.animation import alike
from pipeline.dataset.encoding import write_picture
from pipeline.dataset.images import read_picture
from pipeline.dataset.job import upscale_images
from pipeline.dataset.picture import Encoding, Limits, Metadata, Picture, PictureError
from pipeline.report import PlainListener
from tests.pipeline.dataset.files import drawn, every_kind, png, random_picture, saved

EACH = Limits(max_pixels=1 << 20, animated="each")
TIMES = [50, 120, 300]


def moving(kind: str, mode: str = "RGB", **options) -> bytes:
    first, *more = (Image.fromarray(np.roll(drawn(), 9 * i, axis=1)).convert(mode) for i in range(3))
    return saved(first, kind, save_all=True, append_images=more, duration=TIMES, **options)


def shown(data: bytes) -> list[tuple[int, np.ndarray]]:
    with Image.open(io.BytesIO(data)) as image:
        pixels = ((np.array(frame.convert("RGBA")), frame.info) for frame in ImageSequence.Iterator(image))
        return [(round(info["duration"]), frame) for frame, info in pixels]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF"])
def test_every_frame_is_read_as_it_is_shown_with_its_time(kind: str) -> None:
    data = moving(kind, loop=0)
    picture = read_picture(data, EACH)
    assert picture.durations_ms == tuple(TIMES)
    assert picture.plays == 0
    for pixels, (_, expected) in zip(picture.frames, shown(data), strict=True):
        np.testing.assert_array_equal(pixels[..., :3], expected[..., :3])


@pytest.mark.parametrize(
    ("kind", "asked", "ending"), [("GIF", "same", ".png"), ("WEBP", "same", ".webp"), ("PNG", "jpeg", ".png")]
)
def test_frames_are_written_with_their_times_and_repetitions(kind: str, asked: str, ending: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    picture = read_picture(moving(kind, loop=2, **options), EACH)
    data, found = write_picture(picture, picture.pixels, Encoding(format=asked), picture.more)
    assert found == ending
    again = read_picture(data, EACH)
    assert (again.durations_ms, again.plays) == (tuple(TIMES), 3 if kind == "GIF" else 2)
    if ending == ".png":
        for before, after in zip(picture.frames, again.frames, strict=True):
            np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    ("kind", "plays", "times", "found_plays", "found_times"),
    [
        ("webp", 65536, (0xFFFFFF, 5), 65535, (0xFFFFFF, 5)),
        ("webp", 2**32 - 1, (65_535_000, 1 << 24), 65535, (0xFFFFFF, 0xFFFFFF)),
        ("png", 2**32 - 1, (65535, 655_350), 2**32 - 1, (65535, 655_350)),
        ("png", 65536, (66_667, 0xFFFFFF), 65536, (66_670, 16_777_000)),
    ],
)
def test_more_times_and_longer_than_a_format_can_say_become_the_most_it_can(
    kind: str, plays: int, times: tuple[int, int], found_plays: int, found_times: tuple[int, int]
) -> None:
    picture = Picture(drawn(), "GIF", Metadata(), more=(drawn()[::-1],), durations_ms=times, plays=plays)
    again = read_picture(write_picture(picture, picture.pixels, Encoding(kind), picture.more)[0], EACH)
    assert (again.plays, again.durations_ms) == (found_plays, found_times)


def test_the_picture_of_an_animated_png_for_others_is_no_frame_of_it() -> None:
    picture = read_picture(moving("PNG", default_image=True), EACH)
    assert picture.durations_ms == (50, 120)
    for pixels, shift in zip(picture.frames, (9, 18), strict=True):
        np.testing.assert_array_equal(pixels, np.roll(drawn(), shift, axis=1))
    one = Limits(max_pixels=1 << 20, animated="first")
    np.testing.assert_array_equal(read_picture(moving("PNG", default_image=True), one).pixels, drawn())


@pytest.mark.parametrize("depth", [2, 4])
def test_the_transparent_grey_of_an_animated_png_is_the_same_in_every_frame(depth: int) -> None:
    frames = [(np.arange(40).reshape(5, 8) + number) % 2**depth for number in range(3)]
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", 8, 5, depth, 0, 0, 0, 0)),
        (b"tRNS", b"\0\1"),
        (b"acTL", struct.pack(">II", 3, 0)),
    ]
    for number, values in enumerate(frames):
        bits = np.unpackbits(values.astype(np.uint8)[..., None], axis=-1)[..., -depth:].reshape(5, -1)
        packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in np.packbits(bits, axis=1)))
        at = max(0, 2 * number - 1)
        parts.append((b"fcTL", struct.pack(">IIIIIHHBB", at, 8, 5, 0, 0, 1, 10, 0, 0)))
        parts.append((b"fdAT", struct.pack(">I", at + 1) + packed) if number else (b"IDAT", packed))
    data = png.SIGNATURE + b"".join(png.chunk(*part) for part in [*parts, (b"IEND", b"")])
    for values, pixels in zip(frames, read_picture(data, EACH).frames, strict=True):
        np.testing.assert_array_equal(pixels[..., 0], values * (255 // (2**depth - 1)))
        np.testing.assert_array_equal(pixels[..., 1], np.where(values == 1, 0, 255))


def test_a_gif_that_does_not_repeat_is_shown_once() -> None:
    assert read_picture(moving("GIF"), EACH).plays == 1


def test_frames_of_other_kinds_become_alike() -> None:
    grey, colour = (random_picture(11, 13, channels, np.uint8) for channels in (2, 3))
    first, second = alike([grey, colour])
    np.testing.assert_array_equal(first, np.concatenate([grey[..., [0, 0, 0]], grey[..., 1:]], axis=2))
    np.testing.assert_array_equal(second[..., :3], colour)
    assert (second[..., 3] == 255).all()


@pytest.mark.parametrize(
    ("data", "pixels", "status"),
    [
        (every_kind()["pages"], 1 << 20, "unsupported"),
        (moving("GIF"), 27 * 21 * 3 - 1, "too_large"),
        (moving("PNG")[:-150], 1 << 20, "decode_error"),
    ],
)
def test_f1_pages_and_what_is_too_long_or_damaged_are_refused(data: bytes, pixels: int, status: str) -> None:
    with pytest.raises(PictureError) as found:
        read_picture(data, Limits(max_pixels=pixels, animated="each"))
    assert found.value.status == status


def test_one_picture_is_read_as_ever() -> None:
    assert read_picture(every_kind()["gif"], EACH).more == ()
    assert read_picture(png.encode(drawn(), 1), EACH).durations_ms == ()


def test_a_folder_with_animations_becomes_one_with_larger_ones(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for kind in ("GIF", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        (tmp_path / f"in/a.{kind.lower()}").write_bytes(moving(kind, **options))
    config = ImagesConfig(model="nearest-x2", animated="each")
    upscale_images(str(tmp_path / "in"), str(tmp_path / "out"), config, local.run_units, PlainListener("images"))

    rows = pq.read_table(tmp_path / "out/_index.parquet").to_pylist()
    assert [(row["status"], row["output_width"], row["output_format"]) for row in rows] == [
        ("ok", 54, "png"),
        ("ok", 54, "webp"),
    ]
    for before, after in (("a.gif", "a.gif.png"), ("a.webp", "a.webp")):
        pairs = zip(shown((tmp_path / "in" / before).read_bytes()), shown((tmp_path / "out" / after).read_bytes()), strict=True)
        for (time, small), (as_long, large) in pairs:
            assert time == as_long
            np.testing.assert_array_equal(large, small.repeat(2, axis=0).repeat(2, axis=1))
