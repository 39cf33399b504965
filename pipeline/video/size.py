"""How large the result is: what the model gives, or the factor, height or box that was asked for; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from pipeline.config import PICTURE_CODECS, VideoConfig


class OutputSize(NamedTuple):
    """Stored pixels and their shape; ``sample_aspect_ratio`` None where nobody states it."""

    width: int
    height: int
    sample_aspect_ratio: str | None


def output_size(source: OutputSize, model_scale: int, config: VideoConfig, turned: bool, guesses: list[str]) -> OutputSize:
    """The size of the result; even where it is not the model's own and the codec halves chroma.

    ``--scale`` enlarges both sides alike, so the shape of the pixels stays. ``--height`` and ``--fit`` mean the picture as it
    is shown: pixels come out square, and where the display matrix has ``turned`` the picture on its side, so are they.
    """
    native = OutputSize(source.width * model_scale, source.height * model_scale, source.sample_aspect_ratio)
    shape = Fraction(source.sample_aspect_ratio or 1)
    if config.scale is not None:
        factor = Fraction(str(config.scale))
        wanted, shown = (source.width * factor, source.height * factor), source.sample_aspect_ratio
    elif config.height is not None or config.fit is not None:
        display = (source.width * shape, Fraction(source.height))
        factor = display_factor(display[::-1] if turned else display, config)
        wanted, shown = (display[0] * factor, display[1] * factor), source.sample_aspect_ratio and "1"
    else:
        return native
    multiple = 1 if config.codec in ("ffv1", *PICTURE_CODECS) else 2
    sides = [nearest_multiple(length, multiple) for length in wanted]
    if config.fit is not None:
        box = config.fit_box[::-1] if turned else config.fit_box
        sides = [min(side, max(multiple, most // multiple * multiple)) for side, most in zip(sides, box, strict=True)]
    size = OutputSize(sides[0], sides[1], shown)
    if config.height is not None and config.height % multiple:
        guesses.append(f"a height of {config.height} is odd, which {config.codec} cannot store; it is {sides[not turned]}")
    if size.width * size.height > native.width * native.height:
        guesses.append(
            f"{size.width}x{size.height} is more than the model's {native.width}x{native.height}; "
            "the rest of the way is Lanczos, and a model of larger scale would be sharper"
        )
    return size


def display_factor(shown: Sequence[Fraction], config: VideoConfig) -> Fraction:
    """By how much the picture, (width, height) in square pixels, grows to the height or into the box asked for."""
    if config.fit is None:
        assert config.height is not None
        return config.height / shown[1]
    width, height = config.fit_box
    return min(width / shown[0], height / shown[1])


def nearest_multiple(length: Fraction, multiple: int) -> int:
    return max(multiple, math.floor(length / multiple + Fraction(1, 2)) * multiple)
