"""Between the codes of pictures, 8 or 16 bits of full range, and the floats that networks work on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Pictures = NDArray[np.uint8] | NDArray[np.uint16]


def shape_of(x: Tensor) -> tuple[int, int, int, int]:
    """Of (N, C, H, W) floats or codes. Raises ValueError for what is no such tensor, or an empty one."""
    if x.ndim != 4 or not (x.is_floating_point() or x.dtype in (torch.uint8, torch.uint16)):
        raise ValueError(f"images are (N, C, H, W), floats or codes in uint8 or uint16, got {tuple(x.shape)} in {x.dtype}")
    if 0 in x.shape:
        raise ValueError(f"an image must hold at least one pixel, got shape {tuple(x.shape)}")
    num, chans, height, width = x.shape
    return num, chans, height, width


def as_floats(x: Tensor) -> Tensor:
    """uint8 or uint16 codes of full range as float32 in [0, 1]; floats as they are."""
    return x if x.is_floating_point() else x.float() / torch.iinfo(x.dtype).max


def to_codes(x: Tensor, dtype: np.dtype[Any]) -> Pictures:
    """(N, C, H, W) floats in [0, 1] -> (N, H, W, C) codes of full range, rounded half to even and clamped."""
    peak = int(np.iinfo(dtype).max)
    codes = (x * peak).round_().clamp_(0, peak)
    codes = codes.to(torch.uint8) if dtype == np.uint8 else codes.to(torch.int32).to(torch.uint16)  # on the device of x
    result: Pictures = np.ascontiguousarray(codes.cpu().movedim(1, -1).numpy())
    return result
