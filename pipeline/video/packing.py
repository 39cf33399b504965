"""Pixel formats that keep several channels in one plane, taken apart into planes and put together, sample by sample.

FFmpeg's pixfmt.h says what each holds. Nothing here is scaled or converted but for colours of fewer than eight bits, which are
spread over all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

Samples = NDArray[Any]  # uint8 or uint16


@dataclass(frozen=True, slots=True)
class Packing:
    """One format. ``planar`` is the format of the planes, ``planes`` the channels of each packed plane in their order.

    A channel named twice in a plane belongs to pixels side by side; "_" is padding. Samples lie ``shift`` bits up in a word.
    """

    planar: str
    planes: tuple[str, ...]
    shift: int = 0


PACKINGS = {
    "nv12": Packing("yuv420p", ("Y", "UV")), "nv21": Packing("yuv420p", ("Y", "VU")),
    "nv16": Packing("yuv422p", ("Y", "UV")), "nv24": Packing("yuv444p", ("Y", "UV")), "nv42": Packing("yuv444p", ("Y", "VU")),
    "p010le": Packing("yuv420p10le", ("Y", "UV"), 6), "p012le": Packing("yuv420p12le", ("Y", "UV"), 4),
    "p210le": Packing("yuv422p10le", ("Y", "UV"), 6), "p212le": Packing("yuv422p12le", ("Y", "UV"), 4),
    "p410le": Packing("yuv444p10le", ("Y", "UV"), 6), "p412le": Packing("yuv444p12le", ("Y", "UV"), 4),
    "p016le": Packing("yuv420p16le", ("Y", "UV")), "p216le": Packing("yuv422p16le", ("Y", "UV")),
    "p416le": Packing("yuv444p16le", ("Y", "UV")),
    "yuyv422": Packing("yuv422p", ("YUYV",)), "uyvy422": Packing("yuv422p", ("UYVY",)),
    "yvyu422": Packing("yuv422p", ("YVYU",)),
    "y210le": Packing("yuv422p10le", ("YUYV",), 6), "y212le": Packing("yuv422p12le", ("YUYV",), 4),
    "vuya": Packing("yuva444p", ("VUYA",)), "vuyx": Packing("yuv444p", ("VUY_",)), "ayuv": Packing("yuva444p", ("AYUV",)),
    "uyva": Packing("yuva444p", ("UYVA",)), "vyu444": Packing("yuv444p", ("VYU",)),
    "ayuv64le": Packing("yuva444p16le", ("AYUV",)),
    "xv36le": Packing("yuv444p12le", ("UYV_",), 4), "xv48le": Packing("yuv444p16le", ("UYV_",)),
    "rgb24": Packing("gbrp", ("RGB",)), "bgr24": Packing("gbrp", ("BGR",)),
    "rgba": Packing("gbrap", ("RGBA",)), "bgra": Packing("gbrap", ("BGRA",)),
    "argb": Packing("gbrap", ("ARGB",)), "abgr": Packing("gbrap", ("ABGR",)),
    "rgb0": Packing("gbrp", ("RGB_",)), "bgr0": Packing("gbrp", ("BGR_",)),
    "0rgb": Packing("gbrp", ("_RGB",)), "0bgr": Packing("gbrp", ("_BGR",)),
    "rgb48le": Packing("gbrp16le", ("RGB",)), "rgb48be": Packing("gbrp16le", ("RGB",)),
    "bgr48le": Packing("gbrp16le", ("BGR",)), "bgr48be": Packing("gbrp16le", ("BGR",)),
    "rgba64le": Packing("gbrap16le", ("RGBA",)), "rgba64be": Packing("gbrap16le", ("RGBA",)),
    "bgra64le": Packing("gbrap16le", ("BGRA",)), "bgra64be": Packing("gbrap16le", ("BGRA",)),
    "ya8": Packing("ya8", ("YA",)), "ya16le": Packing("ya16le", ("YA",)), "ya16be": Packing("ya16le", ("YA",)),
}  # fmt: skip

# Words that hold a whole pixel: (planar format, {channel: (lowest bit, number of bits)}).
BIT_FIELDS: dict[str, tuple[str, dict[str, tuple[int, int]]]] = {
    "rgb8": ("gbrp", {"R": (5, 3), "G": (2, 3), "B": (0, 2)}), "bgr8": ("gbrp", {"B": (6, 2), "G": (3, 3), "R": (0, 3)}),
    "rgb565le": ("gbrp", {"R": (11, 5), "G": (5, 6), "B": (0, 5)}),
    "bgr565le": ("gbrp", {"B": (11, 5), "G": (5, 6), "R": (0, 5)}),
    "rgb555le": ("gbrp", {"R": (10, 5), "G": (5, 5), "B": (0, 5)}),
    "bgr555le": ("gbrp", {"B": (10, 5), "G": (5, 5), "R": (0, 5)}),
    "rgb444le": ("gbrp", {"R": (8, 4), "G": (4, 4), "B": (0, 4)}),
    "bgr444le": ("gbrp", {"B": (8, 4), "G": (4, 4), "R": (0, 4)}),
    "x2rgb10le": ("gbrp10le", {"R": (20, 10), "G": (10, 10), "B": (0, 10)}),
    "x2bgr10le": ("gbrp10le", {"B": (20, 10), "G": (10, 10), "R": (0, 10)}),
    "xv30le": ("yuv444p10le", {"V": (20, 10), "Y": (10, 10), "U": (0, 10)}),
    "v30xle": ("yuv444p10le", {"V": (22, 10), "Y": (12, 10), "U": (2, 10)}),
}  # fmt: skip

REPACKED = (
    {name: packing.planar for name, packing in PACKINGS.items()}
    | {name: planar for name, (planar, _) in BIT_FIELDS.items()}
    | {"pal8": "gbrap", "monow": "gray", "monob": "gray"}
)


def unpack(frame: av.VideoFrame) -> dict[str, Samples]:
    """The channels, Y U V A or R G B A, of a frame whose format is in ``REPACKED``; chroma as small as it is stored."""
    name = frame.format.name
    if name == "pal8":
        palette = np.frombuffer(memoryview(frame.planes[1]), np.uint8).reshape(256, 4)
        colours = palette[_lines(frame, 0, np.uint8)[:, : frame.width]]
        return {channel: colours[..., i] for i, channel in enumerate("BGRA")}
    if name in ("monow", "monob"):
        bits = np.unpackbits(_lines(frame, 0, np.uint8), axis=1)[:, : frame.width]
        return {"Y": (bits ^ (name == "monow")) * np.uint8(255)}
    if name in BIT_FIELDS:
        return _unpack_bits(frame, BIT_FIELDS[name])
    packing = PACKINGS[name]
    found: dict[str, Samples] = {}
    planar = av.VideoFormat(packing.planar, frame.width, frame.height)
    depth = planar.components[0].bits
    word = np.dtype(np.uint8) if depth == 8 else np.dtype(">u2" if frame.format.is_big_endian else "<u2")
    for index, channels in enumerate(packing.planes):
        lines = _lines(frame, index, word)
        for channel in set(channels) - {"_"}:
            chroma = channel in "UV"
            width = planar.chroma_width(frame.width) if chroma else frame.width
            height = planar.chroma_height(frame.height) if chroma else frame.height
            samples = lines[:height, _places(channels, channel)][:, :width]
            found[channel] = (samples >> packing.shift).astype(np.uint8 if depth == 8 else np.uint16)
    return found


def pack(channels: dict[str, Samples], name: str) -> av.VideoFrame:
    """The frame of a format of ``PACKINGS`` that ``unpack`` takes apart into ``channels``; padding is zero."""
    packing = PACKINGS[name]
    height, width = channels["Y" if "Y" in channels else "R"].shape
    frame = av.VideoFrame(width, height, name)
    word = next(iter(channels.values())).dtype.newbyteorder(">" if frame.format.is_big_endian else "<")
    for index, order in enumerate(packing.planes):
        lines = _lines(frame, index, word)
        lines[:] = 0
        for channel in set(order) - {"_"}:
            samples = channels[channel]
            lines[: samples.shape[0], _places(order, channel)][:, : samples.shape[1]] = samples << packing.shift
    return frame


def _places(order: str, channel: str) -> slice:
    """Where in a row of words a channel is."""
    return slice(order.index(channel), None, len(order) // order.count(channel))


def _lines(frame: av.VideoFrame, index: int, word: type[np.uint8] | np.dtype[Any]) -> Samples:
    """A plane as words, (height, words in a row with its padding); a view."""
    plane = frame.planes[index]
    data = np.frombuffer(memoryview(plane), np.uint8)[: plane.height * plane.line_size]
    lines: Samples = data.reshape(plane.height, plane.line_size).view(word)
    return lines


def _unpack_bits(frame: av.VideoFrame, fields: tuple[str, dict[str, tuple[int, int]]]) -> dict[str, Samples]:
    planar, channels = fields
    depth = av.VideoFormat(planar).components[0].bits
    num_bytes = frame.format.padded_bits_per_pixel // 8
    words = _lines(frame, 0, np.dtype(f"<u{num_bytes}"))[:, : frame.width].astype(np.uint32)
    found: dict[str, Samples] = {}
    for channel, (low, bits) in channels.items():
        values = words >> low & (1 << bits) - 1
        peak, full = (1 << bits) - 1, (1 << depth) - 1
        found[channel] = ((values * full + peak // 2) // peak).astype(np.uint8 if depth == 8 else np.uint16)
    return found
