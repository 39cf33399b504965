"""PSNR, SSIM and PSNR-B, on the luma or channel by channel, as the published tables are measured.

Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004 (11x11 Gaussian, sigma 1.5).
Yim and Bovik, "Quality assessment of deblocked images", 2011 (PSNR-B).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

Image = NDArray[np.uint8]
Luma = NDArray[np.float64]
SSIM_PIXELS = 11  # of its window

BLOCK = 8  # of JPEG, in pixels


def luma(image: Image) -> Luma:
    """(H, W, 3) RGB uint8 -> (H, W) BT.601 luma in [16, 235], not rounded; (H, W) grey is returned as float."""
    if image.ndim == 2:
        return image.astype(np.float64)
    weights: Luma = np.array([65.481, 128.553, 24.966]) / 255
    # In one memory layout: the order of the sums follows it, and equal images would differ in the last bit.
    return 16 + image.astype(np.float64, order="C") @ weights


def psnr(a: Luma, b: Luma) -> float:
    """Peak signal-to-noise ratio in dB for a peak of 255; infinite for equal images."""
    error = float(np.mean((a - b) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


def ssim(a: Luma, b: Luma) -> float:
    """Mean structural similarity over the positions where the whole window fits. ValueError where it fits nowhere."""
    if min(a.shape) < SSIM_PIXELS:
        raise ValueError(f"SSIM wants {SSIM_PIXELS} pixels each way beside the border, got {a.shape[1]}x{a.shape[0]}")
    offset = np.arange(SSIM_PIXELS) - SSIM_PIXELS // 2
    line = np.exp(-(offset**2) / (2 * 1.5**2))
    window = torch.from_numpy(line / line.sum())
    x, y = (torch.from_numpy(v)[None, None] for v in (a, b))
    maps = torch.cat([x, y, x * x, y * y, x * y])
    mean_x, mean_y, xx, yy, xy = F.conv2d(F.conv2d(maps, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    covariance = 2 * (xy - mean_x * mean_y) + c2
    variances = xx - mean_x**2 + yy - mean_y**2 + c2
    return float(((2 * mean_x * mean_y + c1) * covariance / ((mean_x**2 + mean_y**2 + c1) * variances)).mean())


def psnr_b(output: Luma, truth: Luma) -> float:
    """PSNR in dB, (H, W) both, with the blockiness of ``output`` counted as error; infinite for equal images without blocks."""
    error = float(np.mean((output - truth) ** 2)) + blockiness(output)
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


def blockiness(image: Luma) -> float:
    """(H, W) -> Yim and Bovik's blocking effect factor, in squared codes.

    By how much the mean squared step over the borders of 8x8 blocks exceeds that between other neighbours, weighed by
    log 8 / log min(H, W); 0 where it does not. Borders are counted as for a size in whole blocks, as the tables have it.
    """
    height, width = image.shape
    steps = [(image[:, 1:] - image[:, :-1]) ** 2, (image[1:] - image[:-1]).T ** 2]  # the last axis runs over positions
    at_borders = sum(float(step[:, BLOCK - 1 :: BLOCK].sum()) for step in steps)
    num_borders = height * max(0, width // BLOCK - 1) + width * max(0, height // BLOCK - 1)
    elsewhere = sum(float(step.sum()) for step in steps) - at_borders
    num_elsewhere = sum(step.size for step in steps) - num_borders
    if num_borders == 0:
        return 0.0
    excess = at_borders / num_borders - elsewhere / num_elsewhere
    return float(max(0.0, excess) * math.log(BLOCK) / math.log(min(height, width)))


def channels(image: Image) -> list[Luma]:
    """(H, W) or (H, W, C) -> C arrays of (H, W), floating point in codes."""
    return list(np.moveaxis(np.atleast_3d(image).astype(np.float64), 2, 0))


def psnr_ssim_y(output: Image, truth: Image, border: int) -> tuple[float, float]:
    """PSNR (dB) and SSIM on luma with ``border`` pixels shaved off each side. Raises ValueError where shapes differ."""
    if output.shape != truth.shape:
        raise ValueError(f"images differ in shape: {output.shape} and {truth.shape}")
    inner = slice(border, -border or None)
    a, b = luma(output)[inner, inner], luma(truth)[inner, inner]
    return psnr(a, b), ssim(a, b)
