"""Exact conversion between a video's sample planes and the float RGB that the network works on.

ITU-T H.273 (section 8.3): code values to analogue R'G'B' by matrix coefficients, range and bit depth. Nothing is clamped on
the way to RGB, so that what lies outside the RGB cube (super-white, wide chroma) survives; the one clamp is on the final codes.
Going down, chroma is averaged; going up it is repeated, or sloped within each sample so that its average stays (a limited
linear reconstruction: van Leer, "Towards the ultimate conservative difference scheme IV", 1977). Averaging undoes both, so an
unchanged picture returns bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

# H.273 table 4: (K_R, K_B)
MATRICES: dict[str, tuple[float, float]] = {
    "bt709": (0.2126, 0.0722),
    "fcc": (0.30, 0.11),
    "bt470bg": (0.299, 0.114),
    "smpte170m": (0.299, 0.114),
    "smpte240m": (0.212, 0.087),
    "bt2020nc": (0.2627, 0.0593),
}


@dataclass(frozen=True, slots=True)
class PlaneLayout:
    """How samples are stored: ``depth`` bits; chroma planes smaller by ``2 ** chroma_x`` and ``2 ** chroma_y``.

    ``kind`` "yuv" has planes Y, U, V; "gray" Y; "rgb" R, G, B at full range. ``matrix`` is a key of ``MATRICES``.
    """

    kind: Literal["yuv", "gray", "rgb"]
    depth: int
    chroma_x: int = 0
    chroma_y: int = 0
    matrix: str = "bt709"
    full_range: bool = False

    @property
    def luma_scale(self) -> tuple[float, float]:
        """Code values of luma 0 and of the step from luma 0 to 1."""
        if self.full_range or self.kind == "rgb":
            return 0.0, float(2**self.depth - 1)
        return float(16 << (self.depth - 8)), float(219 << (self.depth - 8))

    @property
    def chroma_scale(self) -> tuple[float, float]:
        """Code values of chroma 0 and of the step from chroma 0 to 1 (chroma reaches from -0.5 to 0.5)."""
        middle = float(1 << (self.depth - 1))
        return middle, float(2**self.depth - 1) if self.full_range else float(224 << (self.depth - 8))


def planes_to_rgb(planes: Sequence[Tensor], layout: PlaneLayout, smooth_chroma: bool = False) -> Tensor:
    """Planes (H, W) uint8 or uint16, chroma smaller -> (3, H, W) float32 R'G'B', nominally [0, 1], not clamped.

    ``smooth_chroma`` slopes the chroma, for networks; without it every chroma sample is repeated, as nearest neighbours are.
    """
    zero, step = layout.luma_scale
    if layout.kind == "rgb":
        return torch.stack([plane.float() / step for plane in planes])
    y = (planes[0].float() - zero) / step
    if layout.kind == "gray":
        return y.expand(3, -1, -1)
    middle, chroma_step = layout.chroma_scale
    height, width = y.shape
    across, down = 2**layout.chroma_x, 2**layout.chroma_y
    u, v = (
        _enlarge(_enlarge((plane.float() - middle) / chroma_step, across, 1, smooth_chroma), down, 0, smooth_chroma)[
            :height, :width
        ]
        for plane in planes[1:3]
    )
    kr, kb = MATRICES[layout.matrix]
    kg = 1 - kr - kb
    r = y + 2 * (1 - kr) * v
    b = y + 2 * (1 - kb) * u
    g = y - (2 * kb * (1 - kb) / kg) * u - (2 * kr * (1 - kr) / kg) * v
    return torch.stack([r, g, b])


def rgb_to_planes(rgb: Tensor, layout: PlaneLayout) -> list[Tensor]:
    """(3, H, W) float R'G'B' -> planes as ``planes_to_rgb`` takes them; rounded half to even, clamped to the code range."""
    zero, step = layout.luma_scale
    if layout.kind == "rgb":
        return [_codes(channel * step, layout.depth) for channel in rgb]
    r, g, b = rgb
    kr, kb = MATRICES[layout.matrix]
    y = kr * r + (1 - kr - kb) * g + kb * b
    if layout.kind == "gray":
        return [_codes(y * step + zero, layout.depth)]
    chroma = torch.stack([(b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))])
    middle, chroma_step = layout.chroma_scale
    u, v = _average(chroma, layout) * chroma_step + middle
    return [_codes(y * step + zero, layout.depth), _codes(u, layout.depth), _codes(v, layout.depth)]


def _codes(values: Tensor, depth: int) -> Tensor:
    codes = values.round().clamp(0, 2**depth - 1)
    return codes.to(torch.uint8) if depth == 8 else codes.to(torch.int32).to(torch.uint16)


def _enlarge(plane: Tensor, factor: int, dim: int, smooth: bool) -> Tensor:
    """Each sample ``factor`` times along ``dim``; with ``smooth`` as a slope whose mean is the sample."""
    repeated = plane.repeat_interleave(factor, dim=dim)
    size = plane.shape[dim]
    if factor == 1 or not smooth or size < 3:
        return repeated
    step = plane.diff(dim=dim)
    before, after = step.narrow(dim, 0, size - 2), step.narrow(dim, 1, size - 2)
    slope = torch.minimum(2 * torch.minimum(before.abs(), after.abs()), (before + after).abs() / 2) * before.sign()
    slope = torch.where(before * after > 0, slope, 0.0)
    # The outermost samples stay flat: part of them may lie outside an odd-sized picture.
    flat = torch.zeros_like(plane.narrow(dim, 0, 1))
    slope = torch.cat([flat, slope, flat], dim=dim).repeat_interleave(factor, dim=dim)
    offset = ((torch.arange(factor, device=plane.device) + 0.5) / factor - 0.5).repeat(size)
    return repeated + slope * (offset[:, None] if dim == 0 else offset)


def _average(chroma: Tensor, layout: PlaneLayout) -> Tensor:
    """(2, H, W) -> chroma resolution; an odd last row or column stands for its whole chroma sample."""
    across, down = 2**layout.chroma_x, 2**layout.chroma_y
    if across == down == 1:
        return chroma
    height, width = chroma.shape[-2:]
    padded = F.pad(chroma[None], (0, -width % across, 0, -height % down), mode="replicate")
    return F.avg_pool2d(padded, (down, across))[0]
