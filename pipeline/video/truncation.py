"""Where a file says that its video ends, and whether the file once was longer: what its header declares and is not there."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import BinaryIO

import av
from av.container import InputContainer
from av.video.stream import VideoStream

ROUNDING_S = Fraction(2, 1000)  # edit lists and Matroska's tags are often in milliseconds


def truncation(
    container: InputContainer,
    video: VideoStream,
    declared_bytes: int | None,
    is_cut: bool,
    num_packets: int,
    last_end_s: float,
) -> list[str]:
    """What says that the file is cut short: an index, a declared size or duration, a last packet that is no whole one.

    ``declared_bytes`` is ``stated_bytes`` of it and ``is_cut`` is ``gif_is_cut``, ``num_packets`` how many the video has,
    ``last_end_s`` where the last packet of any stream ends.
    """
    names, short = container.format.name.split(","), None
    if "mp4" in names and len(video.index_entries) > num_packets:
        short = f"{len(video.index_entries)} video packets declared, {num_packets} there"
    elif declared_bytes is not None:
        if declared_bytes > container.size > 0:
            short = f"{declared_bytes} bytes declared, {container.size} there"
    elif "matroska" in names and container.duration and container.duration / av.time_base - last_end_s > 1:
        short = f"{container.duration / av.time_base:.2f} s declared, {last_end_s:.2f} s there"
    elif "mpegts" in names and container.size > 0 and all(container.size % packet for packet in (188, 192, 204)):
        short = "it ends in the middle of a transport packet"
    elif "gif" in names and is_cut:
        short = "its blocks do not lead to its end"
    return [f"the file is truncated: {short}"] if short else []


def stated_bytes(source: str | BinaryIO) -> int | None:
    """How long a Matroska or AVI file says it is; None for others, and where it does not say.

    The position of an open file is left at its start.
    """
    with from_start(source) as file:
        head = file.read(4096)
        return _riff_bytes(file) if head[:4] == b"RIFF" and head[8:12] == b"AVI " else _matroska_bytes(head)


def _riff_bytes(file: BinaryIO) -> int | None:
    """Where the last of its RIFF lists ends: those that are longer than a gigabyte or two are several (OpenDML 1.02)."""
    end = 0
    while True:
        file.seek(end)
        head = file.read(8)
        size = int.from_bytes(head[4:], "little")
        if head[:4] != b"RIFF" or not size:
            return end or None
        end += 8 + size + size % 2


def _matroska_bytes(head: bytes) -> int | None:
    """RFC 8794: an EBML header, then one segment."""
    if head[:4] != b"\x1aE\xdf\xa3":
        return None
    at, size = _vint(head, 4)
    if size is None or head[at + size : at + size + 4] != b"\x18S\x80g":
        return None
    at, size = _vint(head, at + size + 4)
    return None if size is None else at + size


def gif_is_cut(source: str | BinaryIO) -> bool:
    """Whether this is a GIF whose blocks (GIF89a, sections 15 to 27) do not lead to its trailer.

    The position of an open file is left at its start.
    """
    with from_start(source) as file:
        return file.read(6) in (b"GIF87a", b"GIF89a") and _leads_nowhere(file)


@contextmanager
def from_start(source: str | BinaryIO) -> Iterator[BinaryIO]:
    """A file to be read from its start, which an open one is left at; empty where it cannot be opened: FFmpeg will say why."""
    if isinstance(source, str):
        try:
            opened: BinaryIO = open(source, "rb")  # noqa: SIM115  (closed below)
        except OSError:
            opened = io.BytesIO()
        with opened:
            yield opened
        return
    source.seek(0)
    yield source
    source.seek(0)


def _leads_nowhere(file: BinaryIO) -> bool:
    _skip_colours(file, file.read(7)[4:5])
    while kind := file.read(1):
        if kind == b"\x21":
            file.read(1)  # which extension
        elif kind == b"\x2c":
            _skip_colours(file, file.read(9)[8:9])
            file.read(1)  # the size of its codes
        elif kind == b"\0":
            continue  # padding
        else:
            return kind != b"\x3b"
        while (length := file.read(1)) != b"\0":
            if not length or len(file.read(length[0])) < length[0]:
                return True
    return True


def _skip_colours(file: BinaryIO, flags: bytes) -> None:
    if flags and flags[0] & 0x80:
        file.read(3 << (flags[0] & 7) + 1)


def _vint(data: bytes, at: int) -> tuple[int, int | None]:
    """Where a number of variable length ends, and the number; None for the one that means "unknown", or where none is."""
    if at >= len(data):
        return at, None
    length = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + length]) & ((1 << 7 * length) - 1)
    return at + length, None if value == (1 << 7 * length) - 1 else value


def last_duration(container_name: str, video: VideoStream, last_pts: int, own: int, edited_until_s: Fraction | None) -> int:
    """Ticks that the last frame, at ``last_pts``, is shown; ``own`` are those that its packet states, or 0.

    Matroska keeps no durations of frames but says when the track ends; those of an mp4 are steps of decoding, and tell nothing
    of the frame shown last where frames are reordered, nor does their sum. But its edit list does, ``edited_until_s``.
    """
    assert video.time_base is not None
    names, end = container_name.split(","), None
    if edited_until_s:
        end = round(edited_until_s / video.time_base)
    elif "mp4" in names and video.duration and video.start_time is not None:
        end = video.start_time + video.duration
    elif "matroska" in names and (seconds := clock_seconds(video.metadata.get("DURATION", ""))):
        end = round(seconds / video.time_base)
    if end is None or end <= last_pts or abs(end - last_pts - own) * video.time_base <= ROUNDING_S:
        return own
    return end - last_pts


def clock_seconds(text: str) -> Fraction:
    """Matroska's "00:01:02.5" in seconds; 0 for anything else."""
    match = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", text)
    return int(match[1]) * 3600 + int(match[2]) * 60 + Fraction(match[3]) if match else Fraction(0)
