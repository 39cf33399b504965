"""What a video's samples mean, and as what the result's are stored: matrix, range, chroma places and pixel format; pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

import av

from pipeline.config import PICTURE_CODECS, VideoConfig
from pipeline.errors import ConfigError, MediaError
from pipeline.video.frames import layout_of
from pipeline.video.header import CHROMA_SITES, UNSTATED
from pipeline.video.info import VideoInfo
from pipeline.video.packing import REPACKED
from pipeline.video.tags import UNSPECIFIED
from swinir.colour import PlaneLayout

# What frames.from_planes fills, and players play; ffv1 keeps whatever there is. bgr0 is how it takes 8-bit RGB.
FILLED = re.compile(r"(yuv4\d\dp|gray|gbrp)(9le|1\dle)?")
FILLED_BY_FFV1 = re.compile(FILLED.pattern + r"|(yuva4\d\dp|gbrap)(9le|1\dle)?|bgr0|bgra|ya8|rgb48le|rgba64le")

PICTURE_FORMATS = {
    "png": ["rgb24", "rgba", "rgb48be", "rgba64be", "gray", "ya8", "gray16be", "ya16be"],
    "gif": ["rgb24", "rgba"],
}

# H.273 matrix coefficients: code point -> name in swinir.colour; "gbr" are planes of G, B and R themselves.
MATRIX_NAMES = {
    0: "gbr", 1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "ycgco", 9: "bt2020nc",
}  # fmt: skip
NOT_LINEAR = {10: "BT.2020 constant luminance", 13: "chromaticity-derived constant luminance", 14: "ICtCp", 15: "IPT-C2"}

# The chroma locations that a codec's stream, or for ffv1 Matroska, can state.
STATABLE = {
    "libx264": set(CHROMA_SITES),
    "libx265": set(CHROMA_SITES),
    "libsvtav1": {"left", "topleft"},
    "ffv1": {"left", "center", "topleft", "top"},
}
ASSUMED_LEFT = ("libx264", "libx265")  # H.264 and HEVC, annex E: what states no location is left


@dataclass(frozen=True, slots=True)
class Colours:
    """How the source's samples are read and the result's written, and what the result's stream says of them."""

    source: PlaneLayout
    target: PlaneLayout
    pix_fmt: str
    color_range: int
    color_space: int
    chroma_location: str


def choose_colours(
    info: VideoInfo, config: VideoConfig, width: int, height: int, in_place: bool, guesses: list[str]
) -> Colours:
    """For a result of ``width`` x ``height``; ``in_place`` where every pixel stays where it is in the source.

    ConfigError where the codec cannot take what was asked, MediaError for a source whose colours cannot be converted.
    """
    matrix, color_space = matrix_policy(info, width, height, guesses)
    source = layout_of(info.pix_fmt, matrix, info.color_range == 2)
    pix_fmt = config.pix_fmt or kept_format(config.codec, info.pix_fmt, source) or ""
    if not pix_fmt:
        opaque = source.alpha and not info.transparent
        pix_fmt = nearest_format(config.codec, replace(source, alpha=False) if opaque else source, guesses)
    if pix_fmt not in encoder_formats(config.codec):
        raise ConfigError(f"{config.codec} cannot encode {pix_fmt}; it takes {', '.join(encoder_formats(config.codec))}")
    if matrix == "gbr" and pix_fmt != info.pix_fmt:
        color_space = guessed_matrix(width, height)
        matrix = MATRIX_NAMES[color_space]
    # The range is the source's, except that RGB turns into limited-range YUV as players expect.
    target = layout_of(pix_fmt, matrix, source.full_range or config.codec in PICTURE_CODECS)
    color_range = info.color_range
    if source.kind == "rgb" and target.kind != "rgb":
        target, color_range = replace(target, full_range=False), 1
        guesses.append(f"RGB is encoded as limited-range {matrix} {pix_fmt}")
    elif target.full_range and source.kind != "rgb":
        color_range = 2
    check_size(config.codec, pix_fmt, target, width, height)
    source, target, location = place_chroma(info, source, target, config, in_place, guesses)
    return Colours(source, target, pix_fmt, color_range, color_space if target.kind != "rgb" else 0, location)


def place_chroma(
    info: VideoInfo, source: PlaneLayout, target: PlaneLayout, config: VideoConfig, in_place: bool, guesses: list[str]
) -> tuple[PlaneLayout, PlaneLayout, str]:
    """Both layouts with the places of their chroma samples, and the location that the result states.

    Models that only repeat samples repeat chroma too, so that its planes stay what they are. For others chroma lies where the
    source says, or H.264 and HEVC assume; a codec that cannot say so gets it on the left.
    """
    from_place = info.chroma_location
    if from_place == UNSTATED:
        from_place = "center" if info.pix_fmt.startswith("yuvj") else "left"
    repeats = config.model == "identity" or config.model.startswith("nearest-x")
    repeats_x, repeats_y = (
        repeats and a == b for a, b in ((source.chroma_x, target.chroma_x), (source.chroma_y, target.chroma_y))
    )
    is_small = bool(source.chroma_x or source.chroma_y)
    to_place = from_place if is_small and (from_place in STATABLE.get(config.codec, set()) or repeats) else "left"
    stated = UNSTATED
    if (target.chroma_x, target.chroma_y) == (1, 1) and is_small:
        stated = info.chroma_location if to_place == from_place else to_place
        if config.codec in ASSUMED_LEFT and stated == "left":
            stated = UNSTATED
        if stated != UNSTATED and stated not in STATABLE.get(config.codec, set()):
            guesses.append(f"{config.codec} cannot state that chroma lies {stated}; players will take it as left")
            stated = UNSTATED
    source = with_sites(source, from_place, repeats_x, repeats_y)
    target = with_sites(target, to_place, repeats_x, repeats_y)
    kept = in_place and (source.chroma_x, source.chroma_y, from_place) == (target.chroma_x, target.chroma_y, to_place)
    return source, replace(target, chroma_kept=kept), stated


def with_sites(layout: PlaneLayout, place: str, repeats_x: bool, repeats_y: bool) -> PlaneLayout:
    x, y = CHROMA_SITES[place]
    return replace(
        layout,
        site_x=None if repeats_x or not layout.chroma_x else x,
        site_y=None if repeats_y or not layout.chroma_y else y,
    )


def matrix_policy(info: VideoInfo, width: int, height: int, guesses: list[str]) -> tuple[str, int]:
    """The matrix to convert by, and the code point to tag the result with.

    Untagged video is taken as players take it: by its size. It stays untagged, unless the larger picture would be taken for
    something else; then the matrix is stated.
    """
    stored = av.VideoFormat(REPACKED.get(info.pix_fmt, info.pix_fmt), 16, 16)
    if stored.is_rgb:
        code = guessed_matrix(width, height)
        return MATRIX_NAMES[code], code
    # Only three planes of full size can be G, B and R; elsewhere the code point is a mistake for "unspecified".
    impossible = info.color_space == 0 and (stored.chroma_width(16) != 16 or stored.chroma_height(16) != 16 or is_grey(stored))
    if info.color_space == UNSPECIFIED or impossible:
        code = guessed_matrix(info.width, info.height)
        guesses.append(f"the colour matrix is not stated; taken as {MATRIX_NAMES[code]} for {info.width}x{info.height}")
        if guessed_matrix(width, height) == code:
            return MATRIX_NAMES[code], UNSPECIFIED
        guesses.append(f"the result is tagged {MATRIX_NAMES[code]}, since players take {width}x{height} for another matrix")
        return MATRIX_NAMES[code], code
    if info.color_space not in MATRIX_NAMES:
        known = NOT_LINEAR.get(info.color_space)
        raise MediaError(
            f"colour matrix {info.color_space}{f' ({known})' if known else ''} of ITU-T H.273 is not supported; convert the "
            "source first, e.g. ffmpeg -i SOURCE -vf zscale=matrix=2020_ncl -c:v ffv1 -c:a copy converted.mkv"
        )
    return MATRIX_NAMES[info.color_space], info.color_space


def is_grey(stored: av.VideoFormat) -> bool:
    return sum(not component.is_alpha for component in stored.components) == 1


def guessed_matrix(width: int, height: int) -> int:
    if height >= 720 or width >= 1280:
        return 1
    return 5 if height == 576 else 6


def encoder_formats(codec: str) -> list[str]:
    """Pixel formats that the encoder takes and this project fills; with alpha, and RGB of every depth, for ffv1."""
    if codec in PICTURE_FORMATS:
        return PICTURE_FORMATS[codec]
    filled = FILLED_BY_FFV1 if codec == "ffv1" else FILLED
    names = [fmt.name for fmt in av.Codec(codec, "w").video_formats or []]
    return [name for name in names if filled.fullmatch(name)]


def kept_format(codec: str, pix_fmt: str, source: PlaneLayout) -> str | None:
    """The source's own pixel format, where the encoder takes it; players expect YUV of the others but ffv1."""
    return pix_fmt if pix_fmt in encoder_formats(codec) and (codec == "ffv1" or source.kind != "rgb") else None


def nearest_format(codec: str, source: PlaneLayout, guesses: list[str]) -> str:
    """The encoder's cheapest format that loses nothing of the source's depth, chroma and alpha, or the one that loses least."""
    if codec in PICTURE_FORMATS:
        kind: Literal["gray", "rgb"] = "gray" if source.kind == "gray" and codec == "png" else "rgb"
        source = PlaneLayout(kind, source.depth, alpha=source.alpha)
    elif source.kind == "rgb" and codec != "ffv1":
        source = PlaneLayout("yuv", source.depth, alpha=source.alpha)
    candidates = []
    for name in encoder_formats(codec):
        layout = layout_of(name, "bt709", source.full_range)
        if (layout.kind == "rgb") != (source.kind == "rgb"):
            continue
        lost = (
            max(0, source.depth - layout.depth)
            + 2 * max(0, layout.chroma_x - source.chroma_x)
            + 2 * max(0, layout.chroma_y - source.chroma_y)
        )
        lost += 9 * (source.kind != "gray" and layout.kind == "gray")
        no_alpha = source.alpha and not layout.alpha
        samples = (1.0 if layout.kind == "gray" else 1 + 2 / 2 ** (layout.chroma_x + layout.chroma_y)) + layout.alpha
        candidates.append((no_alpha, lost, samples * layout.depth, name))
    _, lost, _, best = min(candidates)
    if lost:
        guesses.append(f"{codec} cannot hold the source's depth and chroma; encoded as {best}")
    return best


def check_size(codec: str, pix_fmt: str, layout: PlaneLayout, width: int, height: int) -> None:
    """libx264, libx265 and SVT-AV1 want whole chroma samples. Raises ConfigError with a way out."""
    if codec != "ffv1" and (width % 2**layout.chroma_x or height % 2**layout.chroma_y):
        raise ConfigError(
            f"{codec} cannot encode {width}x{height} as {pix_fmt}; use --codec ffv1, --pix-fmt yuv444p or a model of even scale"
        )
