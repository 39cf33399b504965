"""What FFmpeg does not do for edit lists: tell when they end, and hide the priming of sound that starts late.

Its muxer hides only what comes before time zero.

ISO 14496-12, 8.6.6: a first edit without media says when a track starts, the second from which of its media on it is shown.
"""

from __future__ import annotations

import io
import struct
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pipeline.errors import OutputError
from pipeline.video.truncation import from_start

MOST_BYTES = 1 << 28  # of an index that is read: that of weeks of video


class Box(NamedTuple):
    kind: bytes
    content: int
    stop: int


class Number(NamedTuple):
    """Where an unsigned number of the header lies."""

    at: int
    size: int

    def read(self, data: bytearray) -> int:
        return int.from_bytes(data[self.at : self.at + self.size], "big")

    def write(self, data: bytearray, value: int) -> None:
        data[self.at : self.at + self.size] = value.to_bytes(self.size, "big")


def edited_until(source: str | BinaryIO) -> dict[int, Fraction]:
    """By the number of the track, when its edit list ends, in seconds of its presentation; tracks without a length left out.

    Nothing where this is no mp4, or its index is not to be read. The position of an open file is left at its start.
    """
    with from_start(source) as file:
        data = _index(file, MOST_BYTES)
    found = {}
    try:
        ticks = _behind_dates(data, _one(data, Box(b"", 0, len(data)), b"mvhd"))
        for trak in (box for box in boxes(data, 0, len(data)) if box.kind == b"trak"):
            number = _behind_dates(data, _one(data, trak, b"tkhd"))
            holder = _first(data, trak, b"edts")
            edits = holder and _first(data, holder, b"elst")
            if edits and ticks:
                width = 8 if data[edits.content] else 4
                count = Number(edits.content + 4, 4).read(data)
                starts = range(edits.content + 8, edits.stop, 2 * width + 4)[:count]
                found[number] = Fraction(sum(Number(at, width).read(data) for at in starts), ticks)
    except (OutputError, IndexError, struct.error):
        return {}
    return {number: end for number, end in found.items() if end}


def _index(file: BinaryIO, most: int = sys.maxsize) -> bytearray:
    """The content of the moov box, at whose end the file is left; none where there is none."""
    while len(head := file.read(8)) == 8:
        size, kind = struct.unpack(">I4s", head)
        if not kind.isalnum():
            break
        if size == 1:
            size = int.from_bytes(file.read(8), "big") - 8
        if kind == b"moov":
            return bytearray(file.read(min(size - 8, most) if size else most))
        if size < 8:
            break
        file.seek(size - 8, io.SEEK_CUR)
    return bytearray()


def hide_priming(path: Path, tracks: dict[int, Fraction]) -> None:
    """Show the sound of the numbered tracks, from 0, only from so many seconds of it on; when they start stays as it is.

    Raises OutputError where the file's index is not as FFmpeg writes it.
    """
    with path.open("r+b") as file:
        data = _index(file)
        if not data:
            raise OutputError("the result has no index; choose an .mkv destination")
        patch_index(data, tracks)
        file.seek(-len(data), io.SEEK_CUR)
        file.write(data)


def patch_index(data: bytearray, tracks: dict[int, Fraction]) -> None:
    """``data`` is the content of a moov box."""
    movie = _one(data, Box(b"", 0, len(data)), b"mvhd")
    movie_ticks = _behind_dates(data, movie)
    traks = [box for box in boxes(data, 0, len(data)) if box.kind == b"trak"]
    for place, hidden_s in tracks.items():
        edits = _one(data, _one(data, traks[place], b"edts"), b"elst")
        width = 8 if data[edits.content] else 4
        first, second = (edits.content + 8 + number * (2 * width + 4) for number in (0, 1))
        count, empty = Number(edits.content + 4, 4).read(data), Number(first + width, width).read(data)
        if (count, empty) != (2, (1 << 8 * width) - 1):
            raise OutputError(f"track {place} has no edit list of a pause and its sound; choose an .mkv destination")
        media_ticks = _behind_dates(data, _one(data, _one(data, traks[place], b"mdia"), b"mdhd"))
        hidden = round(hidden_s * movie_ticks)
        header = _one(data, traks[place], b"tkhd")
        for duration in (Number(second, width), _track_duration(data, header)):
            duration.write(data, duration.read(data) - hidden)
        Number(second + width, width).write(data, round(hidden_s * media_ticks))
    durations = [_track_duration(data, _one(data, trak, b"tkhd")).read(data) for trak in traks]
    wide = data[movie.content]
    Number(movie.content + (24 if wide else 16), 8 if wide else 4).write(data, max(durations))


def boxes(data: bytearray, start: int, stop: int) -> Iterator[Box]:
    """The boxes in a range of bytes."""
    while start + 8 <= stop:
        size, kind = struct.unpack_from(">I4s", data, start)
        head = 16 if size == 1 else 8
        size = struct.unpack_from(">Q", data, start + 8)[0] if size == 1 else size or stop - start
        yield Box(kind, start + head, min(start + size, stop))
        start += max(size, 8)


def _first(data: bytearray, inside: Box, kind: bytes) -> Box | None:
    return next((box for box in boxes(data, inside.content, inside.stop) if box.kind == kind), None)


def _one(data: bytearray, inside: Box, kind: bytes) -> Box:
    found = _first(data, inside, kind)
    if found is None:
        raise OutputError(f"the index of the result has no {kind.decode()} box; choose an .mkv destination")
    return found


def _behind_dates(data: bytearray, header: Box) -> int:
    """What the dates of a header are followed by: of a movie or media its ticks a second, of a track its number."""
    return Number(header.content + (20 if data[header.content] else 12), 4).read(data)


def _track_duration(data: bytearray, header: Box) -> Number:
    wide = data[header.content]
    return Number(header.content + (28 if wide else 20), 8 if wide else 4)
