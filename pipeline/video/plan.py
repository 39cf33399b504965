"""Decide, from what a video holds and what was asked, where it is cut and how it is encoded; pure."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import av

from pipeline.config import VideoConfig
from pipeline.errors import ConfigError, MediaError
from pipeline.units import Unit, digest
from pipeline.video.frames import layout_of
from pipeline.video.probe import UNSPECIFIED, VideoInfo
from pipeline.video.timeline import Timeline
from swinir.colour import PlaneLayout

FORMAT_VERSION = 1  # of segment files and their records; another one shares nothing with this
MIN_SEGMENT_FRAMES = 24  # encoders reorder a few frames and misbehave on segments shorter than that

# What planes can be encoded as; bgr0 is how ffv1 takes 8-bit RGB.
PLANAR = re.compile(r"(yuv4\d\dp|gray|gbrp)(9le|1\dle)?|bgr0")

# H.273 matrix coefficients: code point -> name in swinir.colour
MATRIX_NAMES = {1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 9: "bt2020nc", 10: "bt2020nc"}


@dataclass(frozen=True, slots=True)
class EncodeSpec:
    """All that the bytes of an encoded segment depend on, besides its pixels and their times."""

    codec: str
    pix_fmt: str
    width: int
    height: int
    time_base: str
    rate: str
    sample_aspect_ratio: str | None
    color_range: int
    color_space: int
    color_primaries: int
    color_trc: int
    crf: float | None
    preset: str | None
    threads: int
    global_header: bool


@dataclass(frozen=True, slots=True)
class VideoPlan:
    """What the job will do: the layouts pixels are converted by, the encoder, the segments."""

    source_layout: PlaneLayout
    target_layout: PlaneLayout
    encode: EncodeSpec
    segments: tuple[tuple[int, int], ...]  # half-open frame ranges
    guesses: tuple[str, ...]

    def identity(self, source: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
        """Everything that changes a byte of the result, as plain JSON data."""
        return {
            "format_version": FORMAT_VERSION,
            "source": source,
            "model": model,
            "encode": asdict(self.encode),
            "layouts": [asdict(self.source_layout), asdict(self.target_layout)],
            "segments": digest([list(s) for s in self.segments]),
        }

    def units(self, identity: dict[str, Any]) -> list[Unit]:
        run = digest(identity)
        return [
            Unit(digest([run, start, stop]), stop - start, {"index": index, "start": start, "stop": stop})
            for index, (start, stop) in enumerate(self.segments)
        ]


def plan_video(info: VideoInfo, timeline: Timeline, scale: int, config: VideoConfig, global_header: bool) -> VideoPlan:
    """The plan for one probed video. Raises ConfigError or MediaError where the request cannot be met."""
    width, height = info.width * scale, info.height * scale
    guesses = list(info.guesses)
    matrix, color_space = matrix_policy(info, width, height, guesses)
    source = layout_of(info.pix_fmt, matrix, info.color_range == 2)
    pix_fmt = config.pix_fmt or nearest_format(config.codec, source, guesses)
    if pix_fmt not in encoder_formats(config.codec):
        raise ConfigError(f"{config.codec} cannot encode {pix_fmt}; it takes {', '.join(encoder_formats(config.codec))}")
    # Integer range of the target follows the source's, except that RGB turns into limited-range YUV as players expect.
    full = source.full_range and (source.kind != "rgb" or pix_fmt.startswith(("gbr", "bgr")))
    target = layout_of(pix_fmt, matrix, full)
    check_size(config.codec, pix_fmt, target, width, height)
    color_range = info.color_range
    if source.kind == "rgb" and target.kind != "rgb":
        color_range = 1
        guesses.append(f"RGB is encoded as limited-range {matrix} {pix_fmt}")
    elif source.full_range or target.kind == "rgb":
        color_range = 2
    encode = EncodeSpec(
        codec=config.codec,
        pix_fmt=pix_fmt,
        width=width,
        height=height,
        time_base=info.time_base,
        rate=info.rate,
        sample_aspect_ratio=info.sample_aspect_ratio,
        color_range=color_range,
        color_space=color_space if target.kind != "rgb" else 0,
        color_primaries=info.color_primaries,
        color_trc=info.color_trc,
        crf=config.crf,
        preset=config.preset,
        threads=config.encoder_threads,
        global_header=global_header,
    )
    target_frames = max(1, round(config.segment_seconds * Fraction(info.rate)))
    keys = [int(i) for i in timeline.key.nonzero()[0]]
    solid = [not bool(r) for r in timeline.repeated]
    return VideoPlan(source, target, encode, tuple(plan_segments(len(timeline), keys, target_frames, solid)), tuple(guesses))


def plan_segments(num_frames: int, keys: Sequence[int], target_frames: int, may_start: Sequence[bool]) -> list[tuple[int, int]]:
    """Half-open ranges that cover [0, num_frames) once, in order, each of at least MIN_SEGMENT_FRAMES where there are as many.

    A cut is at the first key frame between ``target_frames`` and twice as many after the cut before, or, where there is none,
    at twice as many; never at a frame that ``may_start`` denies.
    """
    if num_frames < 1 or target_frames < 1:
        raise ValueError(f"num_frames and target_frames must be at least 1, got {num_frames} and {target_frames}")
    shortest = max(target_frames, MIN_SEGMENT_FRAMES)
    last = num_frames - MIN_SEGMENT_FRAMES
    keys = [key for key in keys if may_start[key]]
    cuts = [0]
    while cut := next_cut(cuts[-1] + shortest, cuts[-1] + 2 * shortest, last, keys, may_start):
        cuts.append(cut)
    return list(zip(cuts, [*cuts[1:], num_frames], strict=True))


def next_cut(low: int, high: int, last: int, keys: Sequence[int], may_start: Sequence[bool]) -> int | None:
    """Where in [low, high] to cut, not after ``last``; None for no more cuts."""
    position = bisect_left(keys, low)
    if position < len(keys) and keys[position] <= min(high, last):
        return keys[position]
    if high > last:
        return None
    return next((frame for frame in range(high, low - 1, -1) if may_start[frame]), None)


def matrix_policy(info: VideoInfo, width: int, height: int, guesses: list[str]) -> tuple[str, int]:
    """The matrix to convert by, and the code point to tag the result with.

    Untagged video is taken as players take it: by its size. It stays untagged, unless the larger picture would be taken for
    something else; then the matrix is stated.
    """
    is_rgb = av.VideoFormat(info.pix_fmt).is_rgb or info.pix_fmt == "pal8"
    if info.color_space == UNSPECIFIED or is_rgb:
        code = guessed_matrix(info.width, info.height)
        if is_rgb:
            code = guessed_matrix(width, height)
            return MATRIX_NAMES[code], code
        guesses.append(f"the colour matrix is not stated; taken as {MATRIX_NAMES[code]} for {info.width}x{info.height}")
        if guessed_matrix(width, height) == code:
            return MATRIX_NAMES[code], UNSPECIFIED
        guesses.append(f"the result is tagged {MATRIX_NAMES[code]}, since players take {width}x{height} for another matrix")
        return MATRIX_NAMES[code], code
    if info.color_space not in MATRIX_NAMES:
        raise MediaError(
            f"colour matrix {info.color_space} (ITU-T H.273) is not supported; convert the source to BT.709 or BT.2020 first"
        )
    return MATRIX_NAMES[info.color_space], info.color_space


def guessed_matrix(width: int, height: int) -> int:
    if height >= 720 or width >= 1280:
        return 1
    return 5 if height == 576 else 6


def encoder_formats(codec: str) -> list[str]:
    """Pixel formats that the encoder takes and this project fills: planar YUV, grey and RGB without alpha."""
    names = [fmt.name for fmt in av.Codec(codec, "w").video_formats or []]
    return [name for name in names if PLANAR.fullmatch(name)]


def nearest_format(codec: str, source: PlaneLayout, guesses: list[str]) -> str:
    """The encoder's cheapest format that loses nothing of the source's depth and chroma, or the one that loses least."""
    if source.kind == "rgb" and codec != "ffv1":
        source = PlaneLayout("yuv", source.depth)
    best, loss = "", (9.0, 0.0)
    for name in encoder_formats(codec):
        layout = layout_of(name, source.matrix, source.full_range)
        if (layout.kind == "rgb") != (source.kind == "rgb"):
            continue
        lost = (
            max(0, source.depth - layout.depth)
            + 2 * max(0, layout.chroma_x - source.chroma_x)
            + 2 * max(0, layout.chroma_y - source.chroma_y)
        )
        lost += 9 * (source.kind != "gray" and layout.kind == "gray")
        samples = 1.0 if layout.kind == "gray" else 1 + 2 / 2 ** (layout.chroma_x + layout.chroma_y)
        if (lost, samples * layout.depth) < loss:
            best, loss = name, (lost, samples * layout.depth)
    if loss[0]:
        guesses.append(f"{codec} cannot hold the source's depth and chroma; encoded as {best}")
    return best


def check_size(codec: str, pix_fmt: str, layout: PlaneLayout, width: int, height: int) -> None:
    """libx264, libx265 and SVT-AV1 want whole chroma samples. Raises ConfigError with a way out."""
    if codec != "ffv1" and (width % 2**layout.chroma_x or height % 2**layout.chroma_y):
        raise ConfigError(
            f"{codec} cannot encode {width}x{height} as {pix_fmt}; use --codec ffv1, --pix-fmt yuv444p or a model of even scale"
        )
