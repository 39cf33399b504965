"""PSNR and SSIM on the luma, as the super-resolution tables are measured.

Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004 (11x11 Gaussian, sigma 1.5).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

Image = NDArray[np.uint8]
Luma = NDArray[np.float64]


def luma(image: Image) -> Luma:
    """(H, W, 3) RGB uint8 -> (H, W) BT.601 luma in [16, 235], not rounded; (H, W) grey is returned as float."""
    if image.ndim == 2:
        return image.astype(np.float64)
    weights: Luma = np.array([65.481, 128.553, 24.966]) / 255
    return 16 + image.astype(np.float64) @ weights


def psnr(a: Luma, b: Luma) -> float:
    """Peak signal-to-noise ratio in dB for a peak of 255; infinite for equal images."""
    error = float(np.mean((a - b) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


def ssim(a: Luma, b: Luma) -> float:
    """Mean structural similarity over the positions where the whole window fits."""
    offset = np.arange(11) - 5
    line = np.exp(-(offset**2) / (2 * 1.5**2))
    window = torch.from_numpy(np.outer(line, line) / line.sum() ** 2)[None, None]
    x, y = (torch.from_numpy(v)[None, None] for v in (a, b))
    maps = torch.cat([x, y, x * x, y * y, x * y])
    mean_x, mean_y, xx, yy, xy = F.conv2d(maps, window)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    covariance = 2 * (xy - mean_x * mean_y) + c2
    variances = xx - mean_x**2 + yy - mean_y**2 + c2
    return float(((2 * mean_x * mean_y + c1) * covariance / ((mean_x**2 + mean_y**2 + c1) * variances)).mean())


def psnr_ssim_y(output: Image, truth: Image, border: int) -> tuple[float, float]:
    """PSNR (dB) and SSIM on luma with ``border`` pixels shaved off each side. Raises ValueError where shapes differ."""
    if output.shape != truth.shape:
        raise ValueError(f"images differ in shape: {output.shape} and {truth.shape}")
    inner = slice(border, -border or None)
    a, b = luma(output)[inner, inner], luma(truth)[inner, inner]
    return psnr(a, b), ssim(a, b)
