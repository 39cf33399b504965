"""PNG files as chunks: reading what lies beside the pixels, putting it back, and writing pixels of 8 or 16 bits in bands.

Sections of the PNG specification, third edition, 2025: 5 (chunks), 9 (filters), 11.3 (what the ancillary ones hold).
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER_END = len(SIGNATURE) + 12 + 13  # IHDR comes first and has one size
XMP_KEYWORD = b"XML:com.adobe.xmp"
LARGEST_PROFILE = 16 << 20
GREY_TYPES = (0, 4)
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by number of channels

# What a PNG made of a PNG takes along as it is: how its colours are meant, its pixels' size, its text.
KEPT = (b"cICP", b"mDCV", b"cLLI", b"cHRM", b"gAMA", b"sRGB", b"pHYs", b"tEXt", b"zTXt", b"iTXt")

Chunk = tuple[bytes, bytes]  # type and content

BAND_BYTES = 4 << 20
PIXELS_PER_METRE = 1 / 0.0254  # of one dot an inch


def chunks(data: bytes) -> Iterator[Chunk]:
    """The chunks of a file in order, as far as they are whole."""
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if at + 12 + size > len(data):
            return
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        at += 12 + size


def chunk(kind: bytes, content: bytes) -> bytes:
    return b"".join((struct.pack(">I", len(content)), kind, content, struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))))


def profile(content: bytes) -> bytes | None:
    """The ICC profile of an iCCP chunk; None where it is damaged, or a bomb."""
    _, _, rest = content.partition(b"\0")
    inflate = zlib.decompressobj()
    try:
        found = inflate.decompress(rest[1:], LARGEST_PROFILE)
    except zlib.error:
        return None
    return found if inflate.eof else None


def xmp(content: bytes) -> bytes | None:
    """The packet of an iTXt chunk that holds XMP; None for other text, and for compressed packets that are damaged."""
    keyword, _, rest = content.partition(b"\0")
    if keyword != XMP_KEYWORD or len(rest) < 2:
        return None
    _, _, text = rest[2:].partition(b"\0")  # a language
    _, _, text = text.partition(b"\0")  # the keyword in it
    if not rest[0]:
        return text
    inflate = zlib.decompressobj()
    try:
        found = inflate.decompress(text, LARGEST_PROFILE)
    except zlib.error:
        return None
    return found if inflate.eof else None


def aspect_chunk(across: int, down: int) -> Chunk:
    """Pixels in the same length of no unit."""
    return b"pHYs", struct.pack(">IIB", across, down, 0)


def aspect(kept: Iterable[Chunk]) -> tuple[int, int] | None:
    """What ``aspect_chunk`` was told."""
    content = dict(kept).get(b"pHYs", b"")
    return struct.unpack_from(">II", content) if len(content) == 9 and content[8] == 0 else None


def lying(kept: Iterable[Chunk]) -> tuple[Chunk, ...]:
    """The chunks of a picture that is turned by a quarter: pHYs counts pixels across, then down."""
    return tuple((kind, content[4:8] + content[:4] + content[8:] if kind == b"pHYs" else content) for kind, content in kept)


def metadata_chunks(
    icc: bytes | None, exif: bytes | None, xmp: bytes | None, dpi: tuple[float, float] | None, kept: Iterable[Chunk]
) -> bytes:
    """The chunks to put behind IHDR. ``kept`` are of the types of ``KEPT``; a pHYs among them outdoes ``dpi``."""
    kept = list(kept)
    parts = [chunk(*one) for one in kept]
    if icc:
        # A fixed level, so that the bytes depend on the profile alone.
        parts.insert(0, chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc, 9)))
    if dpi and not any(kind == b"pHYs" for kind, _ in kept):
        x, y = (round(value * PIXELS_PER_METRE) for value in dpi)
        parts.append(chunk(b"pHYs", struct.pack(">IIB", x, y, 1)))
    if exif:
        parts.append(chunk(b"eXIf", exif))
    if xmp:
        parts.append(chunk(b"iTXt", XMP_KEYWORD + b"\0\0\0\0\0" + xmp))
    return b"".join(parts)


def with_chunks(data: bytes, extra: bytes) -> bytes:
    """A file with more chunks before all but its header."""
    return b"".join((data[:HEADER_END], extra, data[HEADER_END:]))


class Writer:
    """A PNG file that grows by rows: (H, W, C) uint8 or uint16, C 1 to 4, and ``extra`` chunks behind its header.

    The bytes do not depend on how many rows come at once.
    """

    def __init__(self, file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any], level: int, extra: bytes = b"") -> None:
        height, width, channels = shape
        header = struct.pack(">IIBBBBB", width, height, 8 * dtype.itemsize, COLOUR_TYPES[channels], 0, 0, 0)
        self._file, self._dtype = file, dtype.newbyteorder(">")
        self._deflate = zlib.compressobj(level, zlib.DEFLATED, 15, 9, zlib.Z_FILTERED if level else zlib.Z_DEFAULT_STRATEGY)
        self._step = channels * dtype.itemsize
        self._above = np.zeros((1, width * self._step), np.uint8)
        self._rows = max(1, BAND_BYTES // (width * self._step))
        self._waiting = np.empty((0, width, channels), dtype)
        file.write(SIGNATURE + chunk(b"IHDR", header) + extra)

    def write(self, pixels: NDArray[Any]) -> None:
        """The next rows."""
        pixels = np.concatenate([self._waiting, pixels]) if len(self._waiting) else pixels
        whole = len(pixels) - len(pixels) % self._rows
        for top in range(0, whole, self._rows):
            self._write(pixels[top : top + self._rows])
        self._waiting = pixels[whole:].copy()

    def close(self) -> None:
        """Write what ends the file, which stays open."""
        if len(self._waiting):
            self._write(self._waiting)
        self._file.write(chunk(b"IDAT", self._deflate.flush()) + chunk(b"IEND", b""))

    def _write(self, pixels: NDArray[Any]) -> None:
        lines = np.ascontiguousarray(pixels.astype(self._dtype, copy=False)).view(np.uint8).reshape(len(pixels), -1)
        packed = self._deflate.compress(_filtered(lines, np.concatenate([self._above, lines[:-1]]), self._step).tobytes())
        if packed:
            self._file.write(chunk(b"IDAT", packed))
        self._above = lines[-1:].copy()


def encode(pixels: NDArray[Any], level: int, extra: bytes = b"") -> bytes:
    """(H, W, C) uint8 or uint16, C 1 to 4 -> a file with the pixels and the ``extra`` chunks."""
    out = io.BytesIO()
    writer = Writer(out, pixels.shape, pixels.dtype, level, extra)
    writer.write(pixels)
    writer.close()
    return out.getvalue()


def _filtered(lines: NDArray[np.uint8], above: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """Rows as the filter leaves them that gives the smallest sum of absolute differences, its number before each."""
    left, corner = np.zeros_like(lines), np.zeros_like(lines)
    left[:, step:], corner[:, step:] = lines[:, :-step], above[:, :-step]
    best = np.empty((len(lines), 1 + lines.shape[1]), np.uint8)
    lowest = np.full(len(lines), np.iinfo(np.int64).max)
    for number, predicted in ((1, left), (2, above), (4, _paeth(left, above, corner))):
        residue = lines - predicted
        cost = np.minimum(residue, -residue).sum(axis=1, dtype=np.int64)
        better = cost < lowest
        best[better, 0], best[better, 1:], lowest[better] = number, residue[better], cost[better]
    return best


def _paeth(left: NDArray[np.uint8], above: NDArray[np.uint8], corner: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Of three neighbours the one nearest to left + above - corner (section 9.4)."""
    a, b, c = (part.astype(np.int16) for part in (left, above, corner))
    to_left, to_above, to_corner = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    return np.where((to_left <= to_above) & (to_left <= to_corner), left, np.where(to_above <= to_corner, above, corner))
