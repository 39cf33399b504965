"""The header of a QuickTime file around samples that lie elsewhere: one video track, every sample a key frame.

Apple, QuickTime File Format Specification: movie atoms. The samples follow the header at once, in order, without gaps.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

_UNITY = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_NO_LANGUAGE = 0x7FFF
_LONG_TIMES = 1 << 24  # version 1: times of 64 bits


@dataclass(frozen=True, slots=True)
class SampleKind:
    """What a sample is: QuickTime's four letters. Raw pictures need their size, and may state a matrix (ITU-T H.273).

    A ``shape`` of pixels, width to height, goes before what the samples say.
    """

    tag: bytes
    width: int = 0
    height: int = 0
    matrix: int | None = None
    shape: Fraction | None = None


def header(kind: SampleKind, sizes: Sequence[int], durations: Sequence[int], ticks_per_second: int) -> bytes:
    """Everything before the first byte of the first sample; ``sizes`` in bytes, ``durations`` in ticks."""
    start = _box(b"ftyp", b"qt  ", _numbers(0), b"qt  ")
    length = len(start) + len(_moov(kind, sizes, durations, ticks_per_second, 0)) + 16
    data = _numbers(1) + b"mdat" + struct.pack(">Q", 16 + sum(sizes))
    return start + _moov(kind, sizes, durations, ticks_per_second, length) + data


def _moov(kind: SampleKind, sizes: Sequence[int], durations: Sequence[int], ticks_per_second: int, offset: int) -> bytes:
    total = sum(durations)
    clock = _numbers(_LONG_TIMES) + struct.pack(">QQIQ", 0, 0, ticks_per_second, total)
    runs = [(len(list(group)), ticks) for ticks, group in itertools.groupby(durations)]
    table = _box(
        b"stbl",
        _full(b"stsd", _numbers(1), _description(kind)),
        _full(b"stts", _numbers(len(runs)), struct.pack(f">{2 * len(runs)}I", *itertools.chain.from_iterable(runs))),
        _full(b"stsc", _numbers(1, 1, len(sizes), 1)),
        _full(b"stsz", _numbers(0, len(sizes)), struct.pack(f">{len(sizes)}I", *sizes)),
        _full(b"co64", _numbers(1), struct.pack(">Q", offset)),
    )
    here = _box(b"dinf", _full(b"dref", _numbers(1), _box(b"url ", _numbers(1))))
    media = _box(
        b"mdia",
        _box(b"mdhd", clock, struct.pack(">HH", _NO_LANGUAGE, 0)),
        _full(b"hdlr", b"mhlrvide", bytes(13)),
        _box(b"minf", _full(b"vmhd", bytes(8)), here, table),
    )
    picture = _numbers(kind.width << 16, kind.height << 16)
    track = _box(b"tkhd", _numbers(_LONG_TIMES | 3), struct.pack(">QQIIQ", 0, 0, 1, 0, total), bytes(16), _UNITY, picture)
    movie = _box(b"mvhd", clock, _numbers(0x10000), b"\1\0", bytes(10), _UNITY, bytes(24), _numbers(2))
    return _box(b"moov", movie, _box(b"trak", track, media))


def _description(kind: SampleKind) -> bytes:
    depth = 32 if kind.tag in (b"RGBA", b"BGRA") else 24
    size = struct.pack(">HH", kind.width, kind.height)
    colour = b"" if kind.matrix is None else _box(b"colr", b"nclc", struct.pack(">HHH", 2, 2, kind.matrix))
    shape = b"" if kind.shape is None else _box(b"pasp", _numbers(*kind.shape.as_integer_ratio()))
    fixed = (bytes(6), b"\0\1", bytes(16), size, _numbers(0x480000, 0x480000, 0), b"\0\1", bytes(32))
    return _box(kind.tag, *fixed, struct.pack(">Hh", depth, -1), colour, shape)


def _box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def _full(kind: bytes, *parts: bytes) -> bytes:
    """A box of version 0 without flags."""
    return _box(kind, bytes(4), *parts)


def _numbers(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)
