"""What a container cuts off its pictures, Matroska's PixelCrop or QuickTime's clean aperture: decoders leave it to players."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import av
from torch import Tensor

from swinir.colour import PlaneLayout


class Window(NamedTuple):
    """The part of a frame that is shown, in pixels."""

    left: int
    top: int
    width: int
    height: int


def window_of(width: int, height: int, cropping: Sequence[int], pix_fmt: str, warnings: list[str]) -> Window:
    """What is shown of a frame, cropped by (left, right, top, bottom) pixels.

    It begins at whole chroma samples: where that is not so, a row or column too many is kept, and ``warnings`` says it.
    """
    left, right, top, bottom = cropping
    if left + right >= width or top + bottom >= height:
        warnings.append(f"the container crops {'/'.join(map(str, cropping))} pixels, which leaves nothing; they are kept")
        return Window(0, 0, width, height)
    known = av.VideoFormat(pix_fmt, 16, 16)
    whole_left, whole_top = left - left % (16 // known.chroma_width(16)), top - top % (16 // known.chroma_height(16))
    if (whole_left, whole_top) != (left, top):
        warnings.append(f"the container crops at ({left}, {top}), amid a chroma sample; done at ({whole_left}, {whole_top})")
    return Window(whole_left, whole_top, width - right - whole_left, height - bottom - whole_top)


def cropped(planes: list[Tensor], layout: PlaneLayout, window: Window) -> list[Tensor]:
    """The window of each plane; chroma planes have a sample for every pixel, whole or in part."""
    left, top, width, height = window
    if planes[0].shape == (height, width):
        return planes
    result = []
    for index, plane in enumerate(planes):
        x, y = (layout.chroma_x, layout.chroma_y) if index in (1, 2) else (0, 0)
        rows, columns = slice(top >> y, -(-(top + height) >> y)), slice(left >> x, -(-(left + width) >> x))
        result.append(plane[rows, columns].contiguous())
    return result
