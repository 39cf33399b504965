"""Animations frame by frame: reading all of them as they are shown, and writing them again with their times."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image, ImageSequence

from pipeline.dataset.picture import Picture, PictureError, Pixels

KINDS = ("GIF", "PNG", "WEBP", "AVIF")  # several pictures in a TIFF are pages
SHORTEST_MS = 100  # what players make of a GIF's frame without a time
MOST_WEBP_PLAYS = 0xFFFF


def with_frames(picture: Picture, image: Image.Image, read: Callable[[Image.Image], Pixels], max_pixels: int) -> Picture:
    """``picture``, which is the first of an animation, with all others, each read as it is shown.

    Raises PictureError where all of them together are more than ``max_pixels``, or have 16 bits.
    """
    # An animated PNG may have a picture for programs that show no animations, which is no frame of it.
    has_default = bool(image.info.get("default_image"))
    count, (width, height) = getattr(image, "n_frames", 1) - has_default, image.size
    if count * width * height > max_pixels:
        raise PictureError(
            "too_large", f"{count} frames of {width}x{height} are more than {max_pixels} pixels; raise the limit"
        )
    if picture.pixels.dtype != np.uint8:
        raise PictureError("unsupported", "animations of 16 bits are not read; take the first frame of each")
    frames, durations = [], []
    for number, frame in enumerate(ImageSequence.Iterator(image)):
        if not number and has_default:
            continue
        frames.append(np.ascontiguousarray(read(frame)))
        durations.append(round(frame.info.get("duration", 0)) or SHORTEST_MS)
    first, *more = alike(frames)
    return replace(
        picture, pixels=first, more=tuple(more), durations_ms=tuple(durations), plays=_plays(picture.format, image.info)
    )


def _plays(kind: str, info: dict[Any, Any]) -> int:
    """How often all of it is shown, 0 for ever. A GIF says how often it is repeated, or nothing, and then it is shown once."""
    loop = info.get("loop")
    if kind == "GIF":
        return 1 if loop is None else loop + 1 if loop else 0
    return int(loop or 0)


def alike(frames: Sequence[Pixels]) -> list[Pixels]:
    """The same pictures with the channels that hold all of them: Pillow gives each what it needs."""
    channels = {frame.shape[2] for frame in frames}
    if len(channels) == 1:
        return list(frames)
    has_alpha, colours = bool(channels & {2, 4}), 3 if channels & {3, 4} else 1
    made = []
    for frame in frames:
        num = frame.shape[2]
        colour = frame[..., : num - (num in (2, 4))]
        parts = [colour.repeat(colours // colour.shape[2], axis=2)]
        if has_alpha:
            parts.append(frame[..., -1:] if num in (2, 4) else np.full_like(frame[..., :1], 255))
        made.append(np.concatenate(parts, axis=2))
    return made


def write(frames: Sequence[Pixels], kind: str, picture: Picture, options: dict[str, Any]) -> bytes:
    """A WebP or PNG file of all frames, equal neighbours as one, with the times and repetitions of ``picture``.

    What the format cannot say becomes the nearest that it can.
    """
    out = io.BytesIO()
    first, *more = (Image.fromarray(frame[..., 0] if frame.shape[2] == 1 else frame) for frame in frames)
    times = [_sayable(time_ms, kind) for time_ms in picture.durations_ms]
    plays = min(picture.plays, MOST_WEBP_PLAYS) if kind == "WEBP" else picture.plays
    first.save(out, kind, save_all=True, append_images=more, duration=times, loop=plays, **options)
    return out.getvalue()


def _sayable(time_ms: int, kind: str) -> int:
    """WebP has 24 bits of milliseconds, PNG a fraction of two numbers of 16."""
    if kind == "WEBP":
        return min(time_ms, 0xFFFFFF)
    step = next((step for step in (1, 10, 100) if time_ms <= 0xFFFF * step), 1000)
    return min(round(time_ms / step), 0xFFFF) * step
