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
from pipeline.dataset.bands import Resampler, Store, resample_pixels
from pipeline.dataset.hidden import filled
from pipeline.dataset.picture import Pixels
from swinir.resize import CUBIC, LANCZOS3
from swinir.upscaler import Upscaler, to_codes

# Pictures with a side under this many pixels get a mirrored border, edge repeated, before a network: on 40 pixel crops of Set5
# lightweight-x2's mean squared error in the outer 4 pixels, against the truth, is 112.9 7.3 45.7 (butterfly bird head) with it,
# 116.8 12.7 46.8 without, 210.6 21.1 52.2 mirrored without repeating the edge, 123.6 10.2 46.6 with the edge alone. 16 pixels
# give the same as 8 in the last two.
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
        _through_model(upscaler, pixels, out, on_band)
        return list(out)
    colours, alpha = pixels[..., :-1], pixels[..., -1:]
    if _mixes_pixels(upscaler, pixels, shape):
        colours = np.stack([filled(*pair) for pair in zip(colours, alpha[..., 0], strict=True)])
    _through_model(upscaler, colours, out[..., :-1], on_band)
    if upscaler.in_chans:
        resample_pixels(alpha, shape, CUBIC, _storing(out[..., -1:]))
    else:
        _through_model(upscaler, alpha, out[..., -1:], on_band)
    return list(out)


def check(before: Pixels, after: Pixels) -> tuple[float, float]:
    """Two numbers to find results by that went wrong, without the truth: (PSNR in dB, colour drift in 8-bit codes).

    The PSNR is of ``after``, reduced to the size of ``before`` as the model's training pictures were, against it, at most
    ``BEST_PSNR_DB``; the drift is the largest difference between the means of a channel. What is fully transparent before does
    not count, but in alpha.
    """
    height, width, channels = before.shape
    has_alpha = channels in (2, 4)
    squares, sums, counts = np.zeros(1), np.zeros(channels), np.zeros(channels)

    def compare(top: int, difference: NDArray[Any]) -> None:
        """By how many 8-bit codes rows of the reduced output are above those of ``before``."""
        seen = np.full(channels, float(len(difference) * width))
        if has_alpha:
            hidden = before[top : top + len(difference), :, -1] == 0
            difference[hidden, :-1] = 0
            seen[:-1] -= np.count_nonzero(hidden)
        exact = np.int64 if difference.dtype == np.int16 else np.float64
        squares[0] += np.square(difference, dtype=np.int32 if exact is np.int64 else None).sum(dtype=exact)
        sums[:] += [difference[..., channel].sum(dtype=exact) for channel in range(channels)]  # far faster than by axes
        counts[:] += seen

    if after.dtype == np.uint8 and after.size <= FEW_SAMPLES:
        channels_of = [after[..., :3]] if channels == 3 else [after[..., i : i + 1] for i in range(channels)]
        reduced = np.concatenate([_reduced(part, (width, height)) for part in channels_of], axis=-1)
        compare(0, reduced.astype(np.int16) - before)
    else:

        def compare_band(top: int, band: Tensor) -> None:
            codes = 255 * band[0].clamp(0, 1).movedim(0, -1).numpy()
            compare(top, codes - before[top : top + len(codes)] / np.float32(np.iinfo(before.dtype).max / 255))

        resample_pixels(after[None], (height, width), CUBIC, compare_band)
    mean_square = squares.sum() / counts.sum() / 255**2 if counts.any() else 0.0
    psnr_db = -10 * math.log10(mean_square) if mean_square > 0 else BEST_PSNR_DB
    drift = float(np.abs(sums / np.maximum(counts, 1)).max())
    return round(min(psnr_db, BEST_PSNR_DB), 2), round(drift, 3)


def _reduced(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """(H, W, 1 or 3) uint8 to ``size`` (width, height) by Pillow's bicubic: MATLAB's but for roundings, and faster."""
    image = Image.fromarray(np.ascontiguousarray(pixels if pixels.shape[2] == 3 else pixels[..., 0]))
    reduced = np.asarray(image.resize(size, Image.Resampling.BICUBIC))
    return reduced.reshape(*reduced.shape[:2], -1)


def _mixes_pixels(upscaler: Upscaler, pixels: Pixels, shape: tuple[int, int]) -> bool:
    """Whether an output pixel holds more than one input pixel."""
    native = (pixels.shape[1] * upscaler.scale, pixels.shape[2] * upscaler.scale)
    return shape != native or not upscaler.name.startswith(("identity", "nearest"))


def _through_model(upscaler: Upscaler, pixels: Pixels, out: Pixels, on_band: Callable[[], None] | None) -> None:
    """(N, H, W, C) codes, through the model and to the size of ``out``."""
    height, width = pixels.shape[1:3]
    margin = PADDING if upscaler.in_chans and min(height, width) < SMALL_SIDE else 0
    if margin:
        pixels = np.pad(pixels, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="symmetric")
    elif not pixels.flags.writeable:  # which PyTorch does not take
        pixels = pixels.copy()
    scale = upscaler.scale
    resampler = Resampler(
        (height * scale, width * scale), (out.shape[1], out.shape[2]), LANCZOS3, _storing(out), margin * scale
    )

    def add(top: int, band: Tensor) -> None:
        resampler.add(top, band)
        if on_band:
            on_band()

    upscaler.stream(torch.from_numpy(np.moveaxis(pixels, -1, 1)), add)


def _storing(out: Pixels) -> Store:
    def store(top: int, band: Tensor) -> None:
        out[:, top : top + band.shape[2]] = to_codes(band, out.dtype)

    return store
