"""The shape of pixels, stated in a finished Matroska file: FFmpeg's muxer writes it only from where PyAV cannot set it.

EBML (RFC 8794) and Matroska (RFC 9559). What the header grows by is taken from the void that FFmpeg leaves in front of it, so
that nothing else in the file moves.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import OutputError

SEGMENT, SEEK_HEAD, SEEK, SEEK_ID, SEEK_POSITION = 0x18538067, 0x114D9B74, 0x4DBB, 0x53AB, 0x53AC
VOID, CRC, INFO, TRACKS, TRACK, VIDEO = 0xEC, 0xBF, 0x1549A966, 0x1654AE6B, 0xAE, 0xE0
DISPLAY_WIDTH, DISPLAY_HEIGHT, DISPLAY_UNIT = 0x54B0, 0x54BA, 0x54B2
STEREO_MODE = 0x53B8
BESIDE, ABOVE = {1, 8, 9, 11}, {2, 3, 6, 7}  # its values where two views share the width, and the height
PIXELS, ASPECT_RATIO = 0, 3  # what display width and height are counted in
HEADER_BYTES = 64 << 20  # more than any header with its codec's private data


class Element(NamedTuple):
    id: int
    start: int  # of the element, and of its content
    content: int
    stop: int


def state_pixel_shape(path: Path, place: int, width: int, height: int, shape: Fraction) -> None:
    """Write the display size of the track at ``place``, a video of ``width`` x ``height``, into the file; exactly.

    In pixels where that is whole, else as a ratio; of one view where the track holds two. OutputError where the file is not
    laid out as FFmpeg does.
    """
    with path.open("r+b") as file:
        data = file.read(HEADER_BYTES)
        segment = next((element for element in children(data, 0, len(data)) if element.id == SEGMENT), None)
        parts = {} if segment is None else _first_of_each(data, segment)
        if segment is None or not {SEEK_HEAD, VOID, INFO, TRACKS} <= parts.keys():
            raise OutputError(f"{path.name}: the Matroska header cannot be given the shape of pixels {shape}")
        head, void, info, tracks = (parts[id] for id in (SEEK_HEAD, VOID, INFO, TRACKS))
        new_tracks = with_display_size(data, tracks, place, width, height, shape)
        growth = len(new_tracks) - (tracks.stop - tracks.start)
        room = void.stop - void.start - growth
        if not (head.stop == void.start and void.stop == info.start and info.stop == tracks.start and room >= 9):
            raise OutputError(f"{path.name}: the Matroska header has no room for the shape of pixels {shape}")
        new_head = with_positions_moved(data, head, {INFO, TRACKS}, -growth)
        new_void = bytes([VOID]) + (1 << 56 | room - 9).to_bytes(8, "big") + bytes(room - 9)
        file.seek(head.start)
        file.write(new_head + new_void + data[info.start : info.stop] + new_tracks)


def display_size(width: int, height: int, shape: Fraction, stereo_mode: int = 0) -> tuple[int, int, int]:
    """Display width, height and unit of pixels of a ``shape``, width to height, or of one view of them in ``stereo_mode``."""
    across, down = width * shape, Fraction(height)
    if stereo_mode in BESIDE:
        across /= 2
    elif stereo_mode in ABOVE:
        down /= 2
    if across.denominator == down.denominator == 1:
        return across.numerator, down.numerator, PIXELS
    ratio = across / down
    return ratio.numerator, ratio.denominator, ASPECT_RATIO


def with_display_size(data: bytes, tracks: Element, place: int, width: int, height: int, shape: Fraction) -> bytes:
    """The Tracks element with the display size of one track's video set."""
    replaced = (DISPLAY_WIDTH, DISPLAY_HEIGHT, DISPLAY_UNIT)
    entries = list(children(data, tracks.content, tracks.stop))
    track = [entry for entry in entries if entry.id == TRACK][place]
    video = next(part for part in children(data, track.content, track.stop) if part.id == VIDEO)
    kept = [part for part in children(data, video.content, video.stop) if part.id not in replaced]
    stereo_mode = next((int.from_bytes(data[part.content : part.stop]) for part in kept if part.id == STEREO_MODE), 0)
    stated = b"".join(
        encoded(id, number.to_bytes(max(1, (number.bit_length() + 7) // 8), "big"))
        for id, number in zip(replaced, display_size(width, height, shape, stereo_mode), strict=True)
    )
    new_video = encoded(VIDEO, b"".join(data[part.start : part.stop] for part in kept) + stated)
    new_track = encoded(TRACK, data[track.content : video.start] + new_video + data[video.stop : track.stop])
    content = b"".join(new_track if entry is track else data[entry.start : entry.stop] for entry in entries if entry.id != CRC)
    return encoded(TRACKS, with_crc(content) if entries[0].id == CRC else content)


def with_positions_moved(data: bytes, head: Element, moved: set[int], by: int) -> bytes:
    """The SeekHead, as long as before, with the positions of some elements changed."""
    content = bytearray(data[head.start : head.stop])
    for seek in children(data, head.content, head.stop):
        parts = {part.id: part for part in children(data, seek.content, seek.stop)} if seek.id == SEEK else {}
        if SEEK_ID in parts and int.from_bytes(data[parts[SEEK_ID].content : parts[SEEK_ID].stop], "big") in moved:
            place = parts[SEEK_POSITION]
            position = int.from_bytes(data[place.content : place.stop], "big") + by
            content[place.content - head.start : place.stop - head.start] = position.to_bytes(place.stop - place.content, "big")
    first = next(children(data, head.content, head.stop))
    if first.id == CRC:
        body = bytes(content[first.stop - head.start :])
        content[first.start - head.start : first.stop - head.start] = with_crc(body)[:6]
    return bytes(content)


def children(data: bytes, start: int, stop: int) -> Iterator[Element]:
    """The elements in a range of bytes; one that reaches past it, or is of unknown size, is the last."""
    while start < stop:
        id_bytes = 9 - data[start].bit_length()
        size_bytes = 9 - data[start + id_bytes].bit_length()
        content = start + id_bytes + size_bytes
        size = int.from_bytes(data[start + id_bytes : content], "big") & ((1 << 7 * size_bytes) - 1)
        unknown = size == (1 << 7 * size_bytes) - 1
        end = stop if unknown else min(stop, content + size)
        yield Element(int.from_bytes(data[start : start + id_bytes], "big"), start, content, end)
        start = end


def encoded(id: int, content: bytes) -> bytes:
    """An element; sizes take as few bytes as they can."""
    num_bytes = next(n for n in range(1, 9) if len(content) < (1 << 7 * n) - 1)
    return (
        id.to_bytes((id.bit_length() + 7) // 8, "big")
        + (len(content) | 1 << 7 * num_bytes).to_bytes(num_bytes, "big")
        + content
    )


def with_crc(content: bytes) -> bytes:
    return encoded(CRC, zlib.crc32(content).to_bytes(4, "little")) + content


def _first_of_each(data: bytes, segment: Element) -> dict[int, Element]:
    """The elements of the header by their ids, up to the tracks."""
    found: dict[int, Element] = {}
    for element in children(data, segment.content, segment.stop):
        found.setdefault(element.id, element)
        if element.id == TRACKS:
            break
    return found
