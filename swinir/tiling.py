"""Cutting an image into equal overlapping tiles on the window grid, and blending their outputs without a seam."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from swinir.windows import pad_to_windows, reflected_index

Span = tuple[int, int]  # half-open

# Input pixels that neighbouring tiles share: a body of up to 24 blocks sees less far. With trained lightweight weights 16
# pixels keep tiled and untiled output 74 to 82 dB apart.
OVERLAP = 32
OVERLAP_SHALLOW = 16


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows [top, bottom) and columns [left, right), in input pixels; may reach into the padding right and below."""

    top: int
    bottom: int
    left: int
    right: int


def plan_tiles(height: int, width: int, tile: int, overlap: int, window: int) -> list[Tile]:
    """Tiles of one size, in rows from the top, that cover the image padded to whole windows and stay inside it.

    No side is longer than ``tile``; neighbours share ``overlap`` pixels or more; every tile starts on a multiple of
    ``window``, so that plain and shifted windows fall where they would in the whole image. A function of its arguments alone.
    Raises ValueError where tile or overlap are not multiples of the window, or leave no progress.
    """
    rows, columns = plan_axis(height, tile, overlap, window), plan_axis(width, tile, overlap, window)
    return [Tile(top, bottom, left, right) for top, bottom in rows for left, right in columns]


def plan_axis(size: int, tile: int, overlap: int, window: int) -> list[Span]:
    """One axis of ``plan_tiles``: as few spans as ``tile`` allows, each as short as that number allows.

    The last span slides inward to end with the padded axis.
    """
    if min(size, tile, window) < 1 or overlap < 0:
        raise ValueError(f"size, tile and window must be positive, got {size}, {tile} and {window} with overlap {overlap}")
    if tile % window or overlap % window or overlap >= tile:
        raise ValueError(f"tile and overlap must be multiples of the window, overlap the smaller: {tile}, {overlap}, {window}")
    padded = round_up(size, window)
    if padded <= tile:
        return [(0, padded)]
    count = ceil_div(padded - overlap, tile - overlap)
    length = round_up(ceil_div(padded + (count - 1) * overlap, count), window)
    starts = [min(i * (length - overlap), padded - length) for i in range(count)]
    return [(start, start + length) for start in starts]


def overlap_for(tile: int, window: int, wanted: int) -> int:
    """The overlap to use with a tile: ``wanted``, but at most a quarter of the tile, in whole windows."""
    return min(round_up(wanted, window), tile // 4 // window * window)


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def round_up(size: int, multiple: int) -> int:
    return ceil_div(size, multiple) * multiple


def blend_weights(spans: Sequence[Span], overlap: int, scale: int) -> list[Tensor]:
    """For each span float32 weights, one per output pixel, that sum to one over all spans at every pixel.

    Across an overlap they rise from 0 to 1 over its middle half: what lies next to a tile's edge saw the least of its
    surroundings and is left out. At the ends of the axis, and where one span is alone, they are exactly 1.
    """
    size = spans[-1][1]
    trim = overlap / 4
    raws: list[Tensor] = []
    total = torch.zeros(size * scale, dtype=torch.float64, device="cpu")
    for start, stop in spans:
        position = (torch.arange((stop - start) * scale, dtype=torch.float64, device="cpu") + 0.5) / scale
        raw = torch.ones_like(position)
        for edge_inside, distance in ((start > 0, position), (stop < size, stop - start - position)):
            if edge_inside and overlap:
                raw = torch.minimum(raw, ((distance - trim) / (overlap - 2 * trim)).clamp(0, 1))
        total[start * scale : stop * scale] += raw
        raws.append(raw)
    return [(raw / total[start * scale : stop * scale]).float() for raw, (start, stop) in zip(raws, spans, strict=True)]


@lru_cache(maxsize=32)
def kept_weights(spans: tuple[Span, ...], overlap: int, scale: int, device: torch.device) -> list[Tensor]:
    """``blend_weights`` on a device: every frame of a video has the same."""
    with torch.inference_mode(False):
        return [weights.to(device) for weights in blend_weights(spans, overlap, scale)]


def blended_bands(
    x: Tensor, tile: int, overlap: int, window: int, scale: int, run: Callable[[list[Tensor]], list[Tensor]]
) -> Iterator[tuple[int, Tensor]]:
    """Run (N, C, H, W) tile by tile and give the output from top to bottom: (first output row, (N, C, rows, W * scale)).

    ``run`` takes the tiles of one row, all of one shape, and returns their outputs on the device of ``x``. No more than two
    rows of tiles are held. A single tile passes unchanged.
    """
    height, width = x.shape[-2:]
    rows, columns = plan_axis(height, tile, overlap, window), plan_axis(width, tile, overlap, window)
    if len(rows) == len(columns) == 1:
        yield 0, run([pad_to_windows(x, window)])[0][..., : height * scale, : width * scale]
        return
    row_weights, column_weights = (kept_weights(tuple(spans), overlap, scale, x.device) for spans in (rows, columns))
    above: Tensor | None = None  # what the rows of tiles so far add to the one at hand
    for index, (top, bottom) in enumerate(rows):
        # Row by row, since padding copies.
        strip = (
            x[..., top:bottom, :] if bottom <= height else x.index_select(-2, reflected_index(height, bottom, x.device)[top:])
        )
        strip = pad_to_windows(strip, window)
        outputs = run([strip[..., left:right] for left, right in columns])
        band = outputs[0].new_zeros((*outputs[0].shape[:2], (bottom - top) * scale, columns[-1][1] * scale))
        if above is not None:
            band[..., : above.shape[-2], :] = above
        for (left, right), weights, output in zip(columns, column_weights, outputs, strict=True):
            share = row_weights[index][:, None] * weights[None, :]
            band[..., left * scale : right * scale].add_(output * share)
        finished = (rows[index + 1][0] if index + 1 < len(rows) else bottom) - top
        above = band[..., finished * scale :, :].clone()
        yield top * scale, band[..., : min(finished, height - top) * scale, : width * scale]


def in_one(tensors: list[Tensor]) -> Tensor:
    """One behind another; one alone as it is, since a copy of what is large takes time."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def in_parts(tensor: Tensor, size: int) -> list[Tensor]:
    """The reverse: ``size`` each, what is left in the last."""
    return [tensor] if len(tensor) <= size else list(torch.split(tensor, size))
