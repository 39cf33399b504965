"""Pictures made larger: grey stays grey, alpha goes its own way, and only bands of them are ever held as floats."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipeline.config import ImagesConfig
from pipeline.dataset.bands import ROWS, Resampler, Store, resample_pixels
from pipeline.dataset.hidden import filled
from pipeline.dataset.picture import Pixels
from swinir.codes import as_floats, to_codes
from swinir.gpu.transfer import placed
from swinir.resize import CUBIC, LANCZOS3
from swinir.upscaler import Upscaler

# Pictures with a side under this many pixels get a mirrored border, edge repeated, before a network. On crops of Set5, nine a
# picture, lightweight-x2's mean squared error in the outer 4 pixels, against the truth, is 0.77 to 0.79 of that without it for
# 33, 37 and 44 pixels, which the network else pads itself, right and bottom, and the same for 40, which are whole windows.
SMALL_SIDE = 200
PADDING = 8
FEW_SAMPLES = 64 << 20  # a picture that may be copied once more
BEST_PSNR_DB = 100.0  # of equal pictures too, so that the figure fits JSON


def target_size(width: int, height: int, model_scale: int, config: ImagesConfig) -> tuple[int, int]:
    """Width and height of the result: what the model gives, or the factor or longer side asked for; at least 1 by 1."""
    if config.scale is not None:
        factor = Fraction(str(config.scale))
    elif config.target_long_side is not None:
        factor = Fraction(config.target_long_side, max(width, height))
    else:
        factor = Fraction(model_scale)
    return max(1, math.floor(width * factor + Fraction(1, 2))), max(1, math.floor(height * factor + Fraction(1, 2)))


def enlarge(upscaler: Upscaler, pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """(H, W, C) uint8 or uint16, C 1 to 4, to ``size`` (width, height); see ``enlarge_many``."""
    return enlarge_many(upscaler, [pixels], size)[0]


def enlarge_many(
    upscaler: Upscaler, pictures: Sequence[Pixels], size: tuple[int, int], on_band: Callable[[], None] | None = None
) -> list[Pixels]:
    """Pictures of one shape and dtype to ``size`` (width, height); the model's own floats are resampled to it by Lanczos.

    Grey goes through an RGB model as three equal channels, and the mean of what comes out is the result. Beside a network,
    alpha is enlarged by bicubic, since a model of pictures draws structure into masks, and what it hides takes the colour of
    what is around. ``on_band`` is called as the model goes on. Raises MemoryError and FloatingPointError as
    ``Upscaler.upscale`` does.
    """
    pixels = np.stack(pictures) if len(pictures) > 1 else pictures[0][None]
    num, _, _, channels = pixels.shape
    shape = size[::-1]
    out = np.empty((num, *shape, channels), pixels.dtype)
    if channels in (1, 3):
        _through_model(upscaler, pixels, shape, _storing(out), on_band)
        return list(out)
    _through_model(upscaler, _colours(upscaler, pixels, shape), shape, _storing(out[..., :-1]), on_band)
    _enlarge_alpha(upscaler, pixels[..., -1:], shape, _storing(out[..., -1:]), on_band)
    return list(out)


def enlarge_in_bands(
    upscaler: Upscaler, pixels: Pixels, size: tuple[int, int], give: Callable[[int, Pixels], None], on_band: Callable[[], None]
) -> None:
    """As ``enlarge``, for a result that is not to be held, but for its alpha.

    ``give`` takes the first row and (rows, W, C) codes, from the top, and from the top again where memory ran out on the way.
    """
    shape = size[::-1]
    if pixels.shape[2] in (1, 3):
        _through_model(upscaler, pixels[None], shape, lambda top, band: give(top, to_codes(band, pixels.dtype)[0]), on_band)
        return
    alpha = np.empty((1, *shape, 1), pixels.dtype)
    _enlarge_alpha(upscaler, pixels[None, ..., -1:], shape, _storing(alpha), on_band)

    def give_both(top: int, band: Tensor) -> None:
        colours = to_codes(band, pixels.dtype)[0]
        give(top, np.concatenate([colours, alpha[0, top : top + len(colours)]], axis=2))

    _through_model(upscaler, _colours(upscaler, pixels[None], shape), shape, give_both, on_band)


def _colours(upscaler: Upscaler, pixels: Pixels, shape: tuple[int, int]) -> Pixels:
    """Those of (N, H, W, 2 or 4), as the model is to see them."""
    colours, alpha = pixels[..., :-1], pixels[..., -1]
    if not _mixes_pixels(upscaler, pixels, shape):
        return colours
    return np.stack([filled(*pair) for pair in zip(colours, alpha, strict=True)])


def _enlarge_alpha(
    upscaler: Upscaler, alpha: Pixels, shape: tuple[int, int], store: Store, on_band: Callable[[], None] | None
) -> None:
    if upscaler.in_chans:
        resample_pixels(alpha, shape, CUBIC, store)
    else:
        _through_model(upscaler, alpha, shape, store, on_band)


def check(before: Pixels, after: Pixels) -> tuple[float, float]:
    """Two numbers to find results by that went wrong, without the truth; see ``Comparison``."""
    comparison = Comparison(before, (after.shape[1], after.shape[0]))
    if after.dtype == np.uint8 and after.size <= FEW_SAMPLES:
        channels, size = before.shape[2], (before.shape[1], before.shape[0])
        channels_of = [after[..., :3]] if channels == 3 else [after[..., i : i + 1] for i in range(channels)]
        reduced = np.concatenate([_reduced(part, size) for part in channels_of], axis=-1)
        comparison.count(0, reduced.astype(np.int16) - before)
    else:
        for top in range(0, len(after), ROWS):
            comparison.add(top, after[top : top + ROWS])
    return comparison.result()


class Comparison:
    """Of a picture ``before`` with its result of ``size`` (width, height), which may come in bands.

    The PSNR, in dB, is of the result, reduced to the size of ``before`` as the model's training pictures were, against it, at
    most ``BEST_PSNR_DB``; the colour drift is the largest difference between the means of a channel, in 8-bit codes. What is
    fully transparent before does not count, but in alpha.
    """

    def __init__(self, before: Pixels, size: tuple[int, int]) -> None:
        height, width, self._channels = before.shape
        self._before = before
        self._resampler = Resampler(size[::-1], (height, width), CUBIC, self._count_band)
        self._squares = 0.0
        self._sums, self._counts = np.zeros(self._channels), np.zeros(self._channels)

    def add(self, top: int, codes: Pixels) -> None:
        """Rows (rows, W, C) of the result from ``top`` on; 0 begins anew."""
        if top == 0:
            self._squares, self._sums, self._counts = 0.0, np.zeros(self._channels), np.zeros(self._channels)
        self._resampler.add(top, as_floats(torch.from_numpy(np.ascontiguousarray(np.moveaxis(codes[None], -1, 1)))))

    def count(self, top: int, difference: NDArray[Any]) -> None:
        """By how many 8-bit codes rows of the reduced result are above those of ``before``."""
        seen = np.full(self._channels, float(difference.shape[0] * difference.shape[1]))
        if self._channels in (2, 4):
            hidden = self._before[top : top + len(difference), :, -1] == 0
            difference[hidden, :-1] = 0
            seen[:-1] -= np.count_nonzero(hidden)
        exact = np.int64 if difference.dtype == np.int16 else np.float64
        self._squares += float(np.square(difference, dtype=np.int32 if exact is np.int64 else None).sum(dtype=exact))
        # far faster than by axes
        self._sums += [difference[..., channel].sum(dtype=exact) for channel in range(self._channels)]
        self._counts += seen

    def result(self) -> tuple[float, float]:
        """(PSNR in dB, colour drift)."""
        mean_square = self._squares / self._counts.sum() / 255**2 if self._counts.any() else 0.0
        psnr_db = -10 * math.log10(mean_square) if mean_square > 0 else BEST_PSNR_DB
        drift = float(np.abs(self._sums / np.maximum(self._counts, 1)).max())
        return round(min(psnr_db, BEST_PSNR_DB), 2), round(drift, 3)

    def _count_band(self, top: int, band: Tensor) -> None:
        codes = 255 * band[0].clamp(0, 1).movedim(0, -1).numpy()
        peak = np.float32(np.iinfo(self._before.dtype).max / 255)
        self.count(top, codes - self._before[top : top + len(codes)] / peak)


def _reduced(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """(H, W, 1 or 3) uint8 to ``size`` (width, height) by Pillow's bicubic: MATLAB's but for roundings, and faster."""
    image = Image.fromarray(np.ascontiguousarray(pixels if pixels.shape[2] == 3 else pixels[..., 0]))
    reduced = np.asarray(image.resize(size, Image.Resampling.BICUBIC))
    return reduced.reshape(*reduced.shape[:2], -1)


def _mixes_pixels(upscaler: Upscaler, pixels: Pixels, shape: tuple[int, int]) -> bool:
    """Whether an output pixel holds more than one input pixel."""
    native = (pixels.shape[1] * upscaler.scale, pixels.shape[2] * upscaler.scale)
    return shape != native or not upscaler.name.startswith(("identity", "nearest"))


def _through_model(
    upscaler: Upscaler, pixels: Pixels, shape: tuple[int, int], store: Store, on_band: Callable[[], None] | None
) -> None:
    """(N, H, W, C) codes, through the model and to the size ``shape`` (height, width)."""
    height, width = pixels.shape[1:3]
    margin = PADDING if upscaler.in_chans and min(height, width) < SMALL_SIDE else 0
    if margin:
        pixels = np.pad(pixels, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="symmetric")
    elif not pixels.flags.writeable:  # which PyTorch does not take
        pixels = pixels.copy()
    scale = upscaler.scale
    resampler = Resampler((height * scale, width * scale), shape, LANCZOS3, store, margin * scale)

    def add(top: int, band: Tensor) -> None:
        resampler.add(top, band)
        if on_band:
            on_band()

    x = torch.from_numpy(np.moveaxis(pixels, -1, 1))
    upscaler.stream(placed(x, len(pixels) * shape[0] * shape[1], upscaler.device), add)


def _storing(out: Pixels) -> Store:
    def store(top: int, band: Tensor) -> None:
        out[:, top : top + band.shape[2]] = to_codes(band, out.dtype)

    return store
