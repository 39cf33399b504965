"""Colours for pixels that nobody sees: under full transparency, taken from the visible ones around, so that edges get no halo.

Files keep anything there, mostly black or white, and a model would mix it into the visible edge. Grossman and Dally, "Point
sample rendering", 1998, section 5.2: average what is known into ever smaller pictures, then fill holes from them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.dataset.picture import Pixels

BAND = 256  # rows at a time, so that no wider copy of the whole picture is made


def filled(colours: Pixels, alpha: Pixels) -> Pixels:
    """(H, W, C) with other colours where ``alpha`` (H, W) is 0; itself where nothing, or everything, is hidden."""
    known = alpha > 0
    return colours if known.all() or not known.any() else _filled(colours, known)


def _filled(colours: Pixels, known: NDArray[np.bool_]) -> Pixels:
    if known.all():
        return colours
    coarse = _filled(*_halved(colours, known))
    width = colours.shape[1]
    out = colours.copy()
    for top in range(0, len(out), BAND):
        guess = coarse[top // 2 : (top + BAND) // 2 + 1].repeat(2, axis=0).repeat(2, axis=1)
        rows = out[top : top + BAND]
        np.copyto(rows, guess[: len(rows), :width], where=~known[top : top + BAND, :, None])
    return out


def _halved(colours: Pixels, known: NDArray[np.bool_]) -> tuple[Pixels, NDArray[np.bool_]]:
    """The mean of the known of every four pixels, and where there is one."""
    height, width = ((size + 1) // 2 for size in known.shape)
    small = np.zeros((height, width, colours.shape[2]), colours.dtype)
    small_known = np.zeros((height, width), np.bool_)
    for top in range(0, len(colours), BAND):
        rows, seen = colours[top : top + BAND], known[top : top + BAND]
        total = np.zeros((-(-len(rows) // 2), width, colours.shape[2]), np.uint32)
        count = np.zeros((*total.shape[:2], 1), np.uint32)
        for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
            corner, visible = rows[y::2, x::2], seen[y::2, x::2, None]
            total[: len(corner), : corner.shape[1]] += corner * visible
            count[: len(corner), : corner.shape[1]] += visible
        part = slice(top // 2, top // 2 + len(total))
        small[part] = (total + count // 2) // np.maximum(count, 1)
        small_known[part] = count[..., 0] > 0
    return small, small_known
