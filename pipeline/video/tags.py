"""What the frames of a video say of themselves besides their samples: colour, orientation, HDR10 metadata, transparency."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

import av

from pipeline.errors import MediaError
from pipeline.video.frames import is_transparent
from pipeline.video.hdr import content_light, mastering_display

FREED_TWICE = ("png", "apng")  # PyAV (18.1) frees the name of an ICC profile with its entry, and again with the frame
UNSPECIFIED = 2  # the H.273 code point of matrix, primaries and transfer that nobody stated
NAMES = ("colour range", "colour matrix", "colour primaries", "transfer characteristics")


def side_data(frame: av.VideoFrame, codec: str) -> list[Any]:
    """The entries beside a frame that ``codec`` decoded.

    None where one is of a kind that PyAV does not know, Exif for one: it then refuses all of them; and none of PNG, on which
    the process would crash.
    """
    try:
        return [] if codec in FREED_TWICE else list(frame.side_data)  # typed as a mapping; it iterates over its values
    except ValueError:
        return []


def display_matrix(entries: list[Any]) -> tuple[int, ...] | None:
    """The nine 16.16 numbers that say how to rotate and mirror the picture, where the source has them."""
    for entry in entries:
        if entry.type.name == "DISPLAYMATRIX":
            return struct.unpack("=9i", bytes(entry)[:36])
    return None


def code_of(of_frame: int, of_stream: int) -> int:
    """An H.273 code point of matrix, primaries or transfer: a frame's own beats the stream's."""
    return int(of_stream) if int(of_frame) == UNSPECIFIED else int(of_frame)


@dataclass(slots=True)
class TagMeter:
    """Collects it frame by frame; ``refuse_change`` tells where frames disagree.

    ``side_data`` are FFmpeg's names. HDR10 metadata is the first that is stated; ``hdr_changes`` counts others after it.
    """

    tags: tuple[int, int, int, int] | None = None
    display_matrix: tuple[int, ...] | None = None
    transparent: bool = False
    mastering_display: tuple[str, ...] = ()
    content_light: tuple[int, ...] = ()
    hdr_changes: int = 0
    side_data: set[str] = field(default_factory=set)
    num_frames: int = 0
    _change: str = ""

    def add(self, frame: av.VideoFrame, codec: str) -> None:
        tags = (int(frame.color_range), int(frame.colorspace), int(frame.color_primaries), int(frame.color_trc))
        entries = side_data(frame, codec)
        matrix = display_matrix(entries)
        if self.tags is None:
            self.tags, self.display_matrix = tags, matrix
        elif tags != self.tags:
            what = ", ".join(f"{name} from {a} to {b}" for name, a, b in zip(NAMES, self.tags, tags, strict=True) if a != b)
            self._note_change(frame, f"{what} (code points of ITU-T H.273)")
        elif matrix and matrix != self.display_matrix:  # a frame that states none is shown as the one before
            self._note_change(frame, f"display matrix from {self.display_matrix} to {matrix}")
        self.transparent = self.transparent or is_transparent(frame)
        self.num_frames += 1
        self.side_data.update(str(entry.type.name) for entry in entries)
        mastering, light = mastering_display(entries), content_light(entries)
        self.hdr_changes += bool(self.mastering_display and mastering and mastering != self.mastering_display)
        self.hdr_changes += bool(self.content_light and light and light != self.content_light)
        self.mastering_display = self.mastering_display or mastering
        self.content_light = self.content_light or light

    def _note_change(self, frame: av.VideoFrame, what: str) -> None:
        at = f" at {float(frame.pts * frame.time_base):.3f} s" if frame.pts is not None and frame.time_base else ""
        self._change = self._change or f"frame {self.num_frames}{at} changes the {what}"

    def refuse_change(self, name: str) -> None:
        """MediaError where two frames are tagged, rotated or mirrored differently."""
        if self._change:
            raise MediaError(f"{name}: {self._change}; split the video there first, and upscale the parts")
