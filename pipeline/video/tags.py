"""What the frames of a video say of themselves besides their samples: colour tags, HDR10 metadata, transparency."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import av

from pipeline.errors import MediaError
from pipeline.video.frames import is_transparent
from pipeline.video.hdr import content_light, mastering_display

FREED_TWICE = ("png", "apng")  # PyAV (18.1) frees the name of an ICC profile with its entry, and again with the frame
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


@dataclass(slots=True)
class TagMeter:
    """Collects it frame by frame; ``refuse_change`` tells where frames disagree.

    ``side_data`` are FFmpeg's names. HDR10 metadata is the first that is stated; ``hdr_changes`` counts others after it.
    """

    tags: tuple[int, int, int, int] | None = None
    transparent: bool = False
    mastering_display: tuple[str, ...] = ()
    content_light: tuple[int, ...] = ()
    hdr_changes: int = 0
    side_data: set[str] = field(default_factory=set)
    num_frames: int = 0
    _change: str = ""

    def add(self, frame: av.VideoFrame, codec: str) -> None:
        tags = (int(frame.color_range), int(frame.colorspace), int(frame.color_primaries), int(frame.color_trc))
        if self.tags is None:
            self.tags = tags
        elif tags != self.tags and not self._change:
            what = ", ".join(f"{name} from {a} to {b}" for name, a, b in zip(NAMES, self.tags, tags, strict=True) if a != b)
            at = f" at {float(frame.pts * frame.time_base):.3f} s" if frame.pts is not None and frame.time_base else ""
            self._change = f"frame {self.num_frames}{at} changes the {what} (code points of ITU-T H.273)"
        self.transparent = self.transparent or is_transparent(frame)
        self.num_frames += 1
        entries = side_data(frame, codec)
        self.side_data.update(str(entry.type.name) for entry in entries)
        mastering, light = mastering_display(entries), content_light(entries)
        self.hdr_changes += bool(self.mastering_display and mastering and mastering != self.mastering_display)
        self.hdr_changes += bool(self.content_light and light and light != self.content_light)
        self.mastering_display = self.mastering_display or mastering
        self.content_light = self.content_light or light

    def refuse_change(self, name: str) -> None:
        """MediaError where two frames are tagged differently."""
        if self._change:
            raise MediaError(f"{name}: {self._change}; split the video there first, and upscale the parts")
