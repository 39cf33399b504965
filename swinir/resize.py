"""MATLAB-exact bicubic resizing, the degradation that the published tables are measured with, and Lanczos to any size.

Keys, "Cubic convolution interpolation for digital image processing", 1981, with a = -0.5; Duchon, "Lanczos filtering in one
and two dimensions", 1979, with three lobes. Widened by the scale when shrinking (MATLAB ``imresize`` antialiasing); borders
mirrored with the edge repeated; rows first, then columns.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def cubic(x: Tensor) -> Tensor:
    """Keys' kernel with a = -0.5."""
    x = x.abs()
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return torch.where(x <= 1, near, torch.where(x <= 2, far, torch.zeros_like(x)))


def lanczos3(x: Tensor) -> Tensor:
    """A sinc under the main lobe of a sinc three times as wide."""
    return torch.where(x.abs() < 3, torch.sinc(x) * torch.sinc(x / 3), torch.zeros_like(x))


Kernel = tuple[Callable[[Tensor], Tensor], float]  # and how wide it is, in samples

CUBIC: Kernel = (cubic, 4.0)
LANCZOS3: Kernel = (lanczos3, 6.0)


def resize(x: Tensor, scale: Fraction | int) -> Tensor:
    """(..., H, W) floating point -> (..., ceil(H * scale), ceil(W * scale)), not clamped."""
    return resize_dim(resize_dim(x, scale, -2), scale, -1)


def resize_uint8(image: NDArray[np.uint8], scale: Fraction | int) -> NDArray[np.uint8]:
    """(H, W) or (H, W, C) uint8, resized as MATLAB does: each of the two passes rounds half up to uint8."""
    x = torch.from_numpy(image.astype(np.float64))
    for dim in (0, 1):
        x = (resize_dim(x, scale, dim) + 0.5).floor().clamp(0, 255)
    return x.to(torch.uint8).numpy()


def resample(x: Tensor, height: int, width: int, kernel: Kernel = LANCZOS3) -> Tensor:
    """(..., H, W) floating point -> (..., height, width), not clamped; ``x`` itself where it has that size."""
    for dim, size in ((-2, height), (-1, width)):
        if x.shape[dim] != size:
            x = resize_dim(x, Fraction(size, x.shape[dim]), dim, kernel)
    return x


def resize_dim(x: Tensor, scale: Fraction | int, dim: int, kernel: Kernel = CUBIC) -> Tensor:
    """One pass along ``dim``, bicubic by default; the other dimensions as they are."""
    return weighed(x, dim, *taps(x.shape[dim], Fraction(scale), kernel))


def weighed(x: Tensor, dim: int, index: Tensor, weights: Tensor) -> Tensor:
    """Sums of slices of ``x`` along ``dim``, as ``taps``, or some columns of it, say: (num_taps, outputs) both."""
    shape = [1] * x.ndim
    shape[dim] = -1
    out: Tensor | None = None
    for index_k, weight_k in zip(index.to(x.device), weights.to(x), strict=True):
        part = x.index_select(dim, index_k) * weight_k.view(shape)
        out = part if out is None else out.add_(part)
    assert out is not None
    return out


@lru_cache(maxsize=64)
def taps(size: int, scale: Fraction, kernel: Kernel) -> tuple[Tensor, Tensor]:
    """For every output position the input positions and weights: two (num_taps, ceil(size * scale)), int64 and float64."""
    if size < 1 or scale <= 0:
        raise ValueError(f"size and scale must be positive, got {size} and {scale}")
    out_size = -int(-size * scale // 1)
    stretch = float(min(scale, Fraction(1)))
    function, support = kernel
    width = support / stretch
    center = torch.arange(out_size, dtype=torch.float64, device="cpu") / float(scale) + 0.5 * (1 / float(scale) - 1)
    first = torch.floor(center - width / 2)
    position = first[None] + torch.arange(int(np.ceil(width)) + 2, dtype=torch.float64, device="cpu")[:, None]
    weights = function((center - position) * stretch)
    weights = weights / weights.sum(dim=0)
    mirrored = position.long() % (2 * size)
    index = torch.minimum(mirrored, 2 * size - 1 - mirrored)
    used = weights.abs().amax(dim=1) > 0
    return index[used], weights[used]
