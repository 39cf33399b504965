"""Between the codes of pictures, 8 or 16 bits of full range, and the floats that networks work on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Pictures = NDArray[np.uint8] | NDArray[np.uint16]


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
