"""What a picture is on its way through the job: pixels with all that belongs to them, or the reason why there are none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from pipeline.dataset import png

Pixels = NDArray[Any]  # (H, W, C) uint8 or uint16
Status = Literal["decode_error", "unsupported", "too_large", "skipped"]


class PictureError(Exception):
    """Why there are no pixels: ``status`` for counting, the message, one line, for reading."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Metadata:
    """What belongs to a picture beside its pixels, each as its file holds it.

    ``exif`` is a TIFF structure, already upright and without its thumbnail. ``segments`` (whole JPEG markers: IPTC, the rest
    of long XMP), ``comment`` and ``chunks`` go back into files of the kind that they came from; an AVIF's colours and a JPEG's
    aspect without a unit are chunks too.
    """

    exif: bytes | None = None
    icc: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    segments: bytes = b""
    comment: bytes = b""
    chunks: tuple[png.Chunk, ...] = ()


@dataclass(frozen=True, slots=True)
class Picture:
    """``pixels`` are (H, W, C) uint8 or uint16, upright, C 1 to 4: grey, grey and alpha, RGB, RGB and alpha (straight).

    ``format`` is Pillow's name of it. ``lossless`` says that a WebP file holds every sample as it was. Of an animation ``more``
    are the pictures after the first, of the same shape; each is shown for its ``durations_ms``, all of them ``plays`` times, or
    for ever where that is 0.
    """

    pixels: Pixels
    format: str
    metadata: Metadata
    lossless: bool = False
    more: tuple[Pixels, ...] = ()
    durations_ms: tuple[int, ...] = ()
    plays: int = 0

    @property
    def frames(self) -> tuple[Pixels, ...]:
        return (self.pixels, *self.more)


@dataclass(frozen=True, slots=True)
class Limits:
    """What is not decoded: more than ``max_pixels`` at all; a shorter side from ``min_side`` on and more than ``skip_pixels``
    because they need no upscaling; files of several pictures, of which "first" takes the first, and "each" all of an animation.
    """

    max_pixels: int
    min_side: int | None = None
    skip_pixels: int | None = None
    animated: Literal["each", "first", "refuse"] = "refuse"


@dataclass(frozen=True, slots=True)
class Encoding:
    """How results are written; ``quality`` is of JPEG and of WebP, which stays lossless where the source was."""

    format: Literal["same", "png", "jpeg", "webp"] = "same"
    png_level: int = 3
    quality: int = 95
    subsampling: Literal["444", "422", "420"] = "444"
