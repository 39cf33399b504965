"""What FFmpeg's own description of a file says of a video stream, where PyAV has no attribute for it."""

from __future__ import annotations

import re
from typing import NamedTuple

import av
from av.container import InputContainer

UNSTATED = "unspecified"

# H.273 section 8.7: where a chroma sample lies among its luma samples, from 0, on the first, to 1, on the last; (x, y).
CHROMA_SITES = {
    "left": (0.0, 0.5), "center": (0.5, 0.5), "topleft": (0.0, 0.0), "top": (0.5, 0.0),
    "bottomleft": (0.0, 1.0), "bottom": (0.5, 1.0),
}  # fmt: skip


class Header(NamedTuple):
    """``chroma_location`` is a key of ``CHROMA_SITES`` or "unspecified"; ``dolby_vision`` (profile, compatibility) or empty.

    ``cropping`` is what the container, not the codec, cuts off: left, right, top, bottom.
    """

    chroma_location: str
    dolby_vision: tuple[int, ...]
    cropping: tuple[int, ...] = (0, 0, 0, 0)


def read_header(container: InputContainer, stream: int) -> Header:
    """What the description says. Not while other threads decode: FFmpeg's log level belongs to the whole process."""
    level = av.logging.get_level()
    # FFmpeg names the location only to those who ask for much, and PyAV collects the text only while it logs.
    av.logging.set_level(av.logging.INFO)
    av.logging.set_libav_level(av.logging.VERBOSE)
    try:
        text = container.dumps_format()  # type: ignore[attr-defined]  # not in PyAV's stubs
    finally:
        av.logging.set_libav_level(av.logging.INFO)
        av.logging.set_level(level)
    return parse_description(text, stream)


def parse_description(text: str, stream: int) -> Header:
    """Of av_dump_format's text: "Stream #0:1[0x2](eng): Video: hevc (Main 10), yuv420p10le(tv, bt2020nc, left), 1920x1080"."""
    found = re.search(rf"Stream #0:{stream}\b(?:(?!Stream #).)*", text, re.DOTALL)
    section = found[0] if found else ""
    properties = re.search(r"Video: .*?, \w+\(([^()]*)\), \d+x\d+", section)
    words = properties[1].split(", ") if properties else []
    profile = re.search(r"DOVI configuration record: .*?profile: (\d+).*?compatibility id: (\d+)", section)
    cropping = re.search(r"Frame Cropping: (\d+)/(\d+)/(\d+)/(\d+)", section)
    return Header(
        next((word for word in words if word in CHROMA_SITES), UNSTATED),
        (int(profile[1]), int(profile[2])) if profile else (),
        tuple(map(int, cropping.groups())) if cropping else (0, 0, 0, 0),
    )
