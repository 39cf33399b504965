"""Into how many slices FFV1 cuts a picture, for decoders with many threads, so that none of it is lost."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import av
import av.error
from av.video.codeccontext import VideoCodecContext

from pipeline.errors import ConfigError

WANTED = 16


@lru_cache
def num_slices(pix_fmt: str, width: int, height: int) -> int:
    """16, or the nearest number that FFmpeg takes and that keeps every sample. ConfigError where there is none.

    FFmpeg (62.28) refuses numbers that cut an odd picture where chroma cannot be cut, but does not see all of them: pictures of
    4:1:0 and 4:1:1 then lose their last chroma samples.
    """
    stored = av.VideoFormat(pix_fmt, 64, 64)
    blocks = 64 // stored.chroma_width(64), 64 // stored.chroma_height(64)
    for number in sorted(range(1, 257), key=lambda number: abs(number - WANTED)):
        if are_whole(number, (width, height), blocks) and are_taken(number, pix_fmt, width, height):
            return number
    raise ConfigError(f"ffv1 cannot cut {width}x{height} {pix_fmt} into slices; use --pix-fmt yuv444p")


def are_whole(number: int, size: tuple[int, int], blocks: tuple[int, int]) -> bool:
    """Whether the grid that FFmpeg makes of ``number`` slices reaches the last chroma sample, both ways.

    ``blocks`` are the luma samples, across and down, that a chroma sample stands for.
    """
    first = 2 if size[0] > 352 or size[1] > 288 else 1
    grids = [(across, down) for down in range(first, 33) for across in range(down, 2 * down + 1) if across * down == number]
    for grid in grids:
        starts = [length * (parts - 1) // parts for length, parts in zip(size, grid, strict=True)]
        last = list(zip(size, starts, blocks, strict=True))
        if not any(length % block and (length - start) % block == 0 for length, start, block in last):
            return all(start // block + -(-(length - start) // block) >= -(-length // block) for length, start, block in last)
    return False


def are_taken(number: int, pix_fmt: str, width: int, height: int) -> bool:
    """Whether FFmpeg opens its encoder with as many."""
    context = av.CodecContext.create("ffv1", "w")
    assert isinstance(context, VideoCodecContext)
    context.width, context.height, context.pix_fmt = width, height, pix_fmt
    context.time_base, context.options = Fraction(1, 25), {"level": "3", "slices": str(number)}
    try:
        context.open()
    except av.error.FFmpegError:
        return False
    return True
