"""The spots where a model and its baseline differ most, side by side with the truth, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

CROP = 80  # pixels of a spot, each way
ENLARGED = 3  # times, each pixel repeated, so that it can be judged
_GAP, _LINE = 6, 16
_PAPER, _INK = "white", "black"

Picture = NDArray[np.uint8]


class Spot(NamedTuple):
    """Crops (baseline, ours, truth) of one place, and by how many codes the first two differ there on average."""

    label: str
    difference: float
    crops: tuple[Picture, ...]


def worst_spot(label: str, pictures: tuple[Picture, Picture, Picture], size: int = CROP) -> Spot:
    """Where (baseline, ours, truth), (H, W, 3) or (H, W) uint8 of one shape, differ most between the first two."""
    baseline, ours, _ = pictures
    difference = np.abs(np.atleast_3d(ours).astype(np.float64) - np.atleast_3d(baseline)).mean(axis=2)
    height, width = (min(size, length) for length in difference.shape)
    total = np.pad(difference.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    inside = total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    top, left = (int(i) for i in np.unravel_index(inside.argmax(), inside.shape))
    crops = tuple(picture[top : top + height, left : left + width].copy() for picture in pictures)
    return Spot(f"{label} at {left},{top}", float(inside.max()) / (height * width), crops)


def draw_strip(spots: Sequence[Spot], headings: tuple[str, str, str]) -> Image.Image:
    """A row for each spot, largest difference first. Raises ValueError where there are none."""
    if not spots:
        raise ValueError("a strip needs at least one spot")
    spots = sorted(spots, key=lambda spot: -spot.difference)
    across = max(spot.crops[0].shape[1] for spot in spots) * ENLARGED + _GAP
    heights = [spot.crops[0].shape[0] * ENLARGED + _LINE + _GAP for spot in spots]
    page = Image.new("RGB", (3 * across + _GAP, sum(heights) + _LINE + 2 * _GAP), _PAPER)
    pen = ImageDraw.Draw(page)
    for column, heading in enumerate(headings):
        pen.text((_GAP + column * across, _GAP), heading, fill=_INK)
    y = _LINE + 2 * _GAP
    for spot, height in zip(spots, heights, strict=True):
        pen.text((_GAP, y), spot.label, fill=_INK)
        for column, crop in enumerate(spot.crops):
            enlarged = Image.fromarray(crop.repeat(ENLARGED, axis=0).repeat(ENLARGED, axis=1)).convert("RGB")
            page.paste(enlarged, (_GAP + column * across, y + _LINE))
        y += height
    return page
