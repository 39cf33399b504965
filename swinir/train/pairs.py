"""Pairs of small and large pictures to train on: reduced as for the published tables, or degraded as real footage is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from swinir.codes import to_codes
from swinir.resize import resize_uint8
from swinir.train.degrade import Coder, Degradation, degrade

Picture = NDArray[np.uint8]
Pair = tuple[Picture, Picture]

CROP = 192  # small pixels, of a degraded pair
SMALLEST = 16  # small pixels
FRAMES = 5  # of the clip that it is a frame of: enough for predicted frames and their artifacts
FASTEST = 8  # large pixels a frame that the camera moves


def reduced_pair(picture: Picture, scale: int) -> Pair:
    """(LR, HR) with HR cropped to a multiple of ``scale`` and LR its MATLAB-bicubic reduction, both uint8."""
    height, width = (size // scale * scale for size in picture.shape[:2])
    hr = np.ascontiguousarray(picture[:height, :width])
    return resize_uint8(hr, Fraction(1, scale)), hr


def degraded_pairs(
    pictures: Iterable[Picture],
    scale: int,
    how: Degradation,
    per_picture: int,
    seed: int | tuple[int, ...],
    coder: Coder | None = None,
) -> Iterator[Pair]:
    """(LR, HR) crops, ``per_picture`` of each picture, every one degraded by a draw of its own; the same for the same seed.

    Pictures too small to be blurred and coded once reduced, under SMALLEST pixels, give none.
    """
    seeds = seed if isinstance(seed, tuple) else (seed,)
    step = math.lcm(8, 2 * scale)  # codecs want even sizes, of small pictures too
    for number, picture in enumerate(pictures):
        if min(picture.shape[:2]) < max(SMALLEST * scale, step):
            continue
        for index in range(per_picture):
            rng = np.random.default_rng((*seeds, number, index))
            clip = panned_clip(picture, CROP * scale, step, rng)
            small = degrade(clip, scale, how, rng, coder)
            shown = int(rng.integers(len(clip)))
            yield picture_of(small[shown]), picture_of(clip[shown])


def panned_clip(picture: Picture, length: int, step: int, rng: np.random.Generator) -> Tensor:
    """(FRAMES, 3, L, L) float32 in [0, 1]: what a camera sees that moves evenly over a picture.

    L is ``length``, or the smaller side of the picture where that is less, rounded down to a multiple of ``step``.
    """
    height, width = picture.shape[:2]
    length = min(length, height, width) // step * step
    moves = rng.integers(-FASTEST, FASTEST + 1, 2)
    places = []
    for size, move in zip((height, width), moves, strict=True):
        way = (FRAMES - 1) * int(move)
        way = way if size - length >= abs(way) else 0
        start = int(rng.integers(max(0, -way), size - length - max(0, way) + 1))
        places.append([start + way * frame // (FRAMES - 1) for frame in range(FRAMES)])
    frames = [picture[y : y + length, x : x + length] for y, x in zip(*places, strict=True)]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 255


def picture_of(x: Tensor) -> Picture:
    """(3, H, W) floats in [0, 1] -> (H, W, 3) uint8."""
    return np.ascontiguousarray(to_codes(x[None], np.dtype(np.uint8))[0], np.uint8)


def shown_on_sheet(num_pairs: int, count: int = 32) -> list[int]:
    """Which of so many pairs stand for all, in order."""
    return [int(index) for index in np.linspace(0, num_pairs - 1, min(count, num_pairs))]


def write_sheet(pairs: Sequence[Pair], path: Path, length: int = 96) -> None:
    """Some pairs as PNG, to be looked at before a run: the middle of LR, its pixels repeated, left of HR; four pairs a row."""
    cells = []
    for lr, hr in (pairs[index] for index in shown_on_sheet(len(pairs))):
        scale = hr.shape[0] // lr.shape[0]
        y, x = ((size - min(length, size)) // 2 for size in lr.shape[:2])
        small = lr[y : y + length, x : x + length].repeat(scale, 0).repeat(scale, 1)
        cell = np.full((length * scale + 4, 2 * length * scale + 4, 3), 255, np.uint8)
        for side, part in enumerate((small, hr[y * scale : (y + length) * scale, x * scale : (x + length) * scale])):
            cell[: part.shape[0], side * length * scale : side * length * scale + part.shape[1]] = part
        cells.append(cell)
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % 4)
    rows = [np.concatenate(cells[i : i + 4], axis=1) for i in range(0, len(cells), 4)]
    Image.fromarray(np.concatenate(rows)).save(path)
