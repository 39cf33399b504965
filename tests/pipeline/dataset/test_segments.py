"""What a JPEG file holds in application segments."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from pipeline.dataset.segments import PHOTOSHOP, XMP_EXTENSION, kept_segments, without_thumbnails


def resource(number: int, data: bytes, name: bytes = b"") -> bytes:
    padded = bytes([len(name)]) + name + b"\0" * (1 - len(name) % 2)
    return b"8BIM" + struct.pack(">H", number) + padded + struct.pack(">I", len(data)) + data + b"\0" * (len(data) % 2)


def segment(number: int, content: bytes) -> bytes:
    return bytes([0xFF, 0xE0 + number]) + struct.pack(">H", len(content) + 2) + content


def test_photoshops_thumbnails_go_and_all_else_stays() -> None:
    iptc, old, new, paths = (resource(n, b"x" * 7, b"name"[: n % 4]) for n in (0x0404, 0x0409, 0x040C, 0x07D0))
    kept = kept_segments([
        ("APP0", b"JFIF"), ("APP13", PHOTOSHOP + iptc + new + old), ("APP1", b"Exif"), ("APP13", b"Adobe_CM\0"),
        ("APP1", XMP_EXTENSION + b"more"), ("APP13", PHOTOSHOP + paths),
    ])  # fmt: skip
    assert kept == segment(13, b"Adobe_CM\0") + segment(1, XMP_EXTENSION + b"more") + segment(13, PHOTOSHOP + iptc + paths)


def test_a_thumbnail_that_goes_on_in_the_next_segment_goes_whole() -> None:
    whole = resource(0x0404, b"iptc") + resource(0x040C, bytes(70_000)) + resource(0x07D0, bytes(80_000))
    parts = [("APP13", PHOTOSHOP + whole[at : at + 65_000]) for at in range(0, len(whole), 65_000)]
    expected = resource(0x0404, b"iptc") + resource(0x07D0, bytes(80_000))
    first = 65_533 - len(PHOTOSHOP)
    assert kept_segments(parts) == segment(13, PHOTOSHOP + expected[:first]) + segment(13, PHOTOSHOP + expected[first:])


@given(st.binary(max_size=60) | st.binary(max_size=40).map(lambda data: b"8BIM\4\4" + data))
def test_what_follows_no_specification_stays(data: bytes) -> None:
    assert without_thumbnails(data) == data


def test_no_segments_are_none() -> None:
    assert kept_segments([]) == kept_segments([("APP13", PHOTOSHOP + resource(0x0409, b"x"))]) == b""
