"""A picture that comes in bands of rows, resampled to another size as it comes, so that it is never whole in floats."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from pipeline.dataset.picture import Pixels
from swinir.codes import as_floats
from swinir.resize import Kernel, resize_dim, taps, weighed

ROWS = 256  # in a band of a stored picture

Store = Callable[[int, Tensor], None]  # takes the number of the first row and a band (N, C, rows, W)


class Resampler:
    """Takes bands of (N, C, height, width) from the top and hands on those of another size, the values of ``resize_dim``.

    ``margin`` rows and columns around the picture are cut away first. A band that begins at 0 begins the picture anew.
    """

    def __init__(self, source: tuple[int, int], target: tuple[int, int], kernel: Kernel, store: Store, margin: int = 0) -> None:
        """Sizes are (height, width)."""
        self._height, self._width = source
        self._target, self._kernel, self._store, self._margin = target, kernel, store, margin
        self._taps: tuple[Tensor, Tensor] | None = None
        if self._height != target[0]:
            self._taps = taps(self._height, Fraction(target[0], self._height), kernel)
            index = self._taps[0].numpy()
            # The first row that any later output needs, and the last that any earlier one does.
            self._first = np.minimum.accumulate(index.min(axis=0)[::-1])[::-1]
            self._last = np.maximum.accumulate(index.max(axis=0))
        self._held: Tensor | None = None
        self._held_top = self._done = 0

    def add(self, top: int, band: Tensor) -> None:
        """Rows of the picture with its margin, ``top`` counted in it."""
        if top == 0:
            self._held, self._held_top, self._done = None, 0, 0
        top -= self._margin
        columns = slice(self._margin, self._margin + self._width)
        band = band[..., max(0, -top) : max(0, self._height - top), columns]
        if band.shape[-2] == 0:
            return
        if self._taps is None:
            self._give(max(0, top), band)
            return
        self._held = band if self._held is None else torch.cat([self._held, band], dim=-2)
        available = self._held_top + self._held.shape[-2]
        stop = int(np.searchsorted(self._last, available))
        if stop > self._done:
            index, weights = (part[:, self._done : stop] for part in self._taps)
            self._give(self._done, weighed(self._held, -2, index - self._held_top, weights))
            self._done = stop
        if stop < len(self._first):
            needed = int(self._first[stop])
            self._held = self._held[..., needed - self._held_top :, :].clone()
            self._held_top = needed

    def _give(self, top: int, band: Tensor) -> None:
        if self._width != self._target[1]:
            band = resize_dim(band, Fraction(self._target[1], self._width), -1, self._kernel)
        self._store(top, band)


def resample_pixels(pixels: Pixels, target: tuple[int, int], kernel: Kernel, store: Store) -> None:
    """(N, H, W, C) codes as floats in [0, 1] of another size (height, width), handed to ``store`` in bands."""
    resampler = Resampler((pixels.shape[1], pixels.shape[2]), target, kernel, store)
    for top in range(0, pixels.shape[1], ROWS):
        band = np.ascontiguousarray(np.moveaxis(pixels[:, top : top + ROWS], -1, 1))
        resampler.add(top, as_floats(torch.from_numpy(band)))
