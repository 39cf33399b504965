"""GIF as a destination: a palette for every frame, what did not change left out, times in hundredths that never drift.

CompuServe, Graphics Interchange Format, version 89a. A stored packet is one graphic control extension with its image; the
delays are put in when the segments are joined.
"""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import av.error
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from pipeline.errors import ConfigError, OutputError
from pipeline.video.packets import PacketWriter, StoredPacket, read_packets
from pipeline.video.plan import EncodeSpec
from pipeline.video.timeline import Timeline
from swinir.colour import LIKE_SRGB_PRIMARIES, LIKE_SRGB_TRANSFER, PlaneLayout

TICKS_PER_SECOND = 100
PALETTE_SAMPLES = 1 << 17  # pixels that a palette is made from; more make it slower, not better
KEEP, CLEAR = 1, 2  # disposal: what becomes of a frame when its time is over
LOOP_BLOCK = b"\x21\xff\x0bNETSCAPE2.0\x03\x01"  # then how often, 0 for ever, and a zero byte
TRAILER = b"\x3b"


@dataclass(slots=True)
class _Frame:
    """A frame that waits to be stored until it is known whether it may stay under the next one."""

    pts: int
    rgb: NDArray[np.uint8]
    opaque: NDArray[np.bool_]
    drawn: NDArray[np.bool_]  # where the canvas does not show it already


class GifEncoder:
    """Frames in, a packet file out. Each segment begins on an empty canvas and leaves one."""

    def __init__(self, path: Path, spec: EncodeSpec, layout: PlaneLayout) -> None:
        if layout.kind != "rgb" or layout.depth != 8:
            raise ValueError(f"a GIF is made of 8-bit RGB, got {layout}")
        self._has_alpha = layout.alpha
        self._writer = PacketWriter(path)
        self._last: _Frame | None = None

    def write(self, planes: list[Tensor], pts: int) -> None:
        """One frame of R, G, B and, where the layout has it, alpha: transparent or not, nothing between."""
        rgb = np.stack([plane.numpy() for plane in planes[:3]], axis=-1)
        opaque = planes[3].numpy() >= 128 if self._has_alpha else np.ones(rgb.shape[:2], bool)
        last, drawn = self._last, opaque
        if last is not None:
            uncovers = bool((last.opaque & ~opaque).any())
            self._store(last, CLEAR if uncovers else KEEP)
            if not uncovers:
                drawn = opaque & (~last.opaque | (rgb != last.rgb).any(axis=-1))
        self._last = _Frame(pts, rgb, opaque, drawn)

    def finish(self) -> bytes:
        """Close the file; there is no header apart from the packets."""
        if self._last is not None:
            self._store(self._last, CLEAR)
        self._writer.close()
        return b""

    def abandon(self) -> None:
        self._writer.close()

    def _store(self, frame: _Frame, disposal: int) -> None:
        # Clearing reaches as far as the image does.
        box = _bounds(frame.drawn) if disposal == KEEP else (slice(0, frame.rgb.shape[0]), slice(0, frame.rgb.shape[1]))
        image = image_block(frame.rgb[box], frame.drawn[box], box[1].start, box[0].start, disposal)
        self._writer.write(StoredPacket(frame.pts, key=frame.pts == 0, data=image))


def _bounds(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The smallest rows and columns that hold all of a mask; a single pixel where it is empty."""
    down, across = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(down):
        return slice(0, 1), slice(0, 1)
    return slice(int(down[0]), int(down[-1]) + 1), slice(int(across[0]), int(across[-1]) + 1)


def image_block(rgb: NDArray[np.uint8], drawn: NDArray[np.bool_], left: int, top: int, disposal: int) -> bytes:
    """A part of the canvas with its own palette; what is not ``drawn`` stays transparent."""
    height, width = drawn.shape
    hollow = not drawn.all()
    palette, indices = palettize(rgb, drawn, 255 if hollow else 256)
    if hollow:
        indices = np.where(drawn, indices, len(palette)).astype(np.uint8)
    bits = max(1, int(len(palette) - 1 + hollow).bit_length())
    table = palette.tobytes().ljust(3 << bits, b"\0")
    control = struct.pack("<BBBBHBB", 0x21, 0xF9, 4, disposal << 2 | hollow, 0, len(palette) if hollow else 0, 0)
    place = struct.pack("<BHHHHB", 0x2C, left, top, width, height, 0x80 | (bits - 1))
    packed = Image.fromarray(indices, "P").tobytes("gif", "P", 8, 0)
    return control + place + table + b"\x08" + packed + b"\0"


def palettize(rgb: NDArray[np.uint8], drawn: NDArray[np.bool_], num_colors: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A palette (colours, 3) and an index (H, W) of every drawn pixel: exact where there are few colours, else dithered."""
    codes = rgb.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    colors, places = np.unique(codes[drawn], return_inverse=True)
    if len(colors) <= num_colors:
        indices = np.zeros(drawn.shape, np.uint8)
        indices[drawn] = places
        return np.stack([colors >> 16, colors >> 8 & 255, colors & 255], axis=-1).astype(np.uint8), indices
    step = int(np.ceil((len(places) / PALETTE_SAMPLES) ** 0.5))
    sample = Image.fromarray(rgb[drawn][None, :: step**2])
    fitted = sample.quantize(num_colors, Image.Quantize.MEDIANCUT, kmeans=1)
    dithered = Image.fromarray(rgb).quantize(palette=fitted, dither=Image.Dither.FLOYDSTEINBERG)
    palette = np.array(fitted.getpalette() or [], np.uint8)[: 3 * num_colors].reshape(-1, 3)
    return palette, np.asarray(dithered)


def start_ticks(timeline: Timeline, time_base: str) -> list[int]:
    """When each frame starts, in hundredths of a second from the first on, and at last when the last one ends.

    Every time is rounded by itself, so that no error adds up.
    """
    ticks = Fraction(time_base) * TICKS_PER_SECOND
    ends = [*(timeline.pts - timeline.pts[0]).tolist(), int(timeline.pts[-1] + timeline.duration[-1] - timeline.pts[0])]
    return [(2 * end * ticks.numerator + ticks.denominator) // (2 * ticks.denominator) for end in ends]


def check_gif(timeline: Timeline, spec: EncodeSpec, name: str) -> list[str]:
    """What a GIF cannot show as it is. ConfigError where it cannot hold the frames at all."""
    if max(spec.width, spec.height) > 0xFFFF:
        raise ConfigError(f"{name}: GIF holds pictures of up to 65535 pixels, not {spec.width}x{spec.height}; choose a video")
    delays = np.diff(start_ticks(timeline, spec.time_base))
    for index in np.flatnonzero((delays < 1) | (delays > 0xFFFF))[:1]:
        shown = float(timeline.duration[index] * Fraction(spec.time_base))
        raise ConfigError(
            f"{name}: frame {index} is shown for {shown:.4f} s; GIF counts from 0.01 s to 655.35 s; choose a video such as .mkv"
        )
    warnings = ["GIF holds 256 colours a frame; others are dithered"]
    if (delays == 1).any():
        warnings.append(f"{int((delays == 1).sum())} frames last 0.01 s, which many players show for 0.1 s")
    if spec.sample_aspect_ratio and Fraction(spec.sample_aspect_ratio) != 1:
        warnings.append(f"pixels of shape {spec.sample_aspect_ratio} are noted in the GIF, but most players show them square")
    stated = (("primaries", spec.color_primaries, LIKE_SRGB_PRIMARIES), ("transfer", spec.color_trc, LIKE_SRGB_TRANSFER))
    for what, code, like_srgb in stated:
        if code not in like_srgb:
            warnings.append(f"GIF cannot state {what} {code} of ITU-T H.273; players take the colours for sRGB")
    return warnings


def loops_of(media: str | BinaryIO) -> int | None:
    """How often a source is repeated, as a GIF says it (0 for ever, None not at all); for ever where it is no animation."""
    if not isinstance(media, str):
        media.seek(0)
    try:
        with Image.open(media, formats=("GIF", "PNG", "WEBP")) as image:
            kind, loop = image.format, image.info.get("loop")
    except (UnidentifiedImageError, SyntaxError):  # the latter of a PNG that is damaged
        return 0
    finally:
        if not isinstance(media, str):
            media.seek(0)
    # The others count how often it is shown.
    return loop if kind == "GIF" or not loop else min(loop - 1, 0xFFFF) or None


def write_gif(
    out: BinaryIO, spec: EncodeSpec, packets: Iterable[StoredPacket], starts: Sequence[int], loops: int | None
) -> None:
    """A whole GIF of the packets of all segments."""
    shape = Fraction(spec.sample_aspect_ratio or 1)
    aspect = 0 if shape == 1 else min(255, max(1, round(shape * 64) - 15))
    out.write(b"GIF89a" + struct.pack("<HHBBB", spec.width, spec.height, 0x70, 0, aspect))
    if loops is not None:
        out.write(LOOP_BLOCK + struct.pack("<HB", loops, 0))
    for packet, (start, end) in zip(packets, itertools.pairwise(starts), strict=True):
        out.write(packet.data[:4] + struct.pack("<H", end - start) + packet.data[6:])
    out.write(TRAILER)


def verify_gif_segment(path: Path, spec: EncodeSpec, extradata: bytes, pts: list[int]) -> None:
    """Decode a finished segment: as many frames as went in. OutputError where that is not so."""
    whole = io.BytesIO()
    write_gif(whole, spec, read_packets(path), range(0, 2 * len(pts) + 1, 2), None)
    whole.seek(0)
    num_frames = len(shown_at(whole)) - 1
    if num_frames != len(pts):
        raise OutputError(f"gif gave {num_frames} decodable frames for {len(pts)}; the segment is done again")


def shown_at(media: str | BinaryIO) -> list[int]:
    """When each frame of a GIF starts, in hundredths of a second, and at last when the last one ends; all are decoded."""
    starts, end = [], 0
    with av.open(media, "r", format="gif", options={"min_delay": "0", "default_delay": "0"}) as container:
        for packet in container.demux(video=0):
            for frame in packet.decode():
                starts.append(int((frame.pts or 0) * (frame.time_base or 0) * TICKS_PER_SECOND))
                end = starts[-1] + int(frame.duration * (frame.time_base or 0) * TICKS_PER_SECOND)
    return [*starts, end]


def verify_gif(path: Path, name: str, starts: Sequence[int]) -> None:
    """Read the finished file: every frame decodes, at its time. OutputError where that is not so."""
    try:
        found = shown_at(str(path))
    except av.error.FFmpegError as error:
        raise OutputError(f"{name}: cannot be read back: {error}; run the same command again") from error
    if found != list(starts):
        raise OutputError(
            f"{name}: {len(found) - 1} of {len(starts) - 1} frames can be read back, or at other times; run again"
        )
