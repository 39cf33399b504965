"""Exact conversion between a video's sample planes and the float RGB that the network works on.

ITU-T H.273 (section 8.3): code values to analogue R'G'B' by matrix coefficients, range and bit depth. Nothing is clamped on
the way to RGB, so that what lies outside the RGB cube (super-white, wide chroma) survives; the one clamp is on the final codes.

Chroma that is smaller than luma has its samples at certain places of the picture (H.273, section 8.7), and is enlarged and
reduced so that colour stays where it is: between two luma samples by slopes whose average is the sample (a limited linear
reconstruction: van Leer, "Towards the ultimate conservative difference scheme IV", 1977), on a luma sample by straight lines.
Without a place it is repeated and averaged. Each way down undoes its way up, so an unchanged picture returns bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

# H.273 table 4: (K_R, K_B)
LUMA_WEIGHTS: dict[str, tuple[float, float]] = {
    "bt709": (0.2126, 0.0722),
    "fcc": (0.30, 0.11),
    "bt470bg": (0.299, 0.114),
    "smpte170m": (0.299, 0.114),
    "smpte240m": (0.212, 0.087),
    "bt2020nc": (0.2627, 0.0593),
}
MATRICES = (*LUMA_WEIGHTS, "ycgco")
# Code points of H.273 that players and viewers show as sRGB: they take the curve of BT.709 and its equals for it, and 2 states
# nothing.
LIKE_SRGB_PRIMARIES = (1, 2)
LIKE_SRGB_TRANSFER = (1, 2, 6, 13, 14, 15)

Site = float | None
Row = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class PlaneLayout:
    """How samples are stored: ``depth`` bits; chroma planes smaller by ``2 ** chroma_x`` and ``2 ** chroma_y``.

    ``kind`` "yuv" has planes Y, U, V; "gray" Y; "rgb" R, G, B; with ``alpha`` one more, straight (not multiplied into the
    others) and of full range. ``matrix`` is one of ``MATRICES``.

    ``site_x`` and ``site_y`` say where a chroma sample lies among the luma samples it stands for, from 0, on the first, to 1,
    on the last; None for no place, where the model repeats samples. ``chroma_kept`` says that a picture to be stored has the
    size and the chroma of its source, so that a chroma sample on a luma sample is taken from there alone; otherwise from those
    around as well.
    """

    kind: Literal["yuv", "gray", "rgb"]
    depth: int
    chroma_x: int = 0
    chroma_y: int = 0
    matrix: str = "bt709"
    full_range: bool = False
    alpha: bool = False
    site_x: Site = None
    site_y: Site = None
    chroma_kept: bool = False

    @property
    def luma_scale(self) -> tuple[float, float]:
        """Code values of luma, or of R, G and B, 0 and of the step from 0 to 1."""
        if self.full_range:
            return 0.0, float(2**self.depth - 1)
        return float(16 << (self.depth - 8)), float(219 << (self.depth - 8))

    @property
    def chroma_scale(self) -> tuple[float, float]:
        """Code values of chroma 0 and of the step from chroma 0 to 1 (chroma reaches from -0.5 to 0.5)."""
        middle = float(1 << (self.depth - 1))
        return middle, float(2**self.depth - 1) if self.full_range else float(224 << (self.depth - 8))


def planes_to_rgb(planes: Sequence[Tensor], layout: PlaneLayout) -> Tensor:
    """Planes (H, W) uint8 or uint16, chroma smaller -> (3, H, W) float32 R'G'B', nominally [0, 1], not clamped."""
    zero, step = layout.luma_scale
    if layout.kind == "rgb":
        return torch.stack([(plane.float() - zero) / step for plane in planes[:3]])
    y = (planes[0].float() - zero) / step
    if layout.kind == "gray":
        return y.expand(3, -1, -1)
    middle, chroma_step = layout.chroma_scale
    height, width = y.shape
    u, v = (_full_size((plane.float() - middle) / chroma_step, layout)[:height, :width] for plane in planes[1:3])
    return torch.stack([y + of_u * u + of_v * v for of_u, of_v in chroma_in_rgb(layout.matrix)])


def rgb_to_planes(rgb: Tensor, layout: PlaneLayout, alpha: Tensor | None = None, dither: int | None = None) -> list[Tensor]:
    """(3, H, W) float R'G'B' -> planes as ``planes_to_rgb`` takes them; rounded half to even, clamped to the code range.

    ``alpha`` is (H, W) float in [0, 1]; where the layout has a plane for it and there is none, all is opaque. ``dither``, the
    number of the frame, spreads the rounding so that no steps show where bits are lost; the mean stays.
    """
    zero, step = layout.luma_scale
    samples = rgb if layout.kind == "rgb" else [_weighed(rgb, yuv_rows(layout.matrix)[0])]
    values = [plane * step + zero for plane in samples]
    if layout.kind == "yuv":
        middle, chroma_step = layout.chroma_scale
        chroma = torch.stack([_weighed(rgb, row) for row in yuv_rows(layout.matrix)[1:]])
        values += [plane * chroma_step + middle for plane in _chroma_size(chroma, layout)]
    if dither is not None:
        values = [plane + threshold(plane.shape[0], plane.shape[1], dither, i, rgb.device) for i, plane in enumerate(values)]
    if layout.alpha:
        values.append((torch.ones_like(rgb[0]) if alpha is None else alpha) * float(2**layout.depth - 1))
    return [_codes(plane, layout.depth) for plane in values]


def alpha_of(planes: Sequence[Tensor], layout: PlaneLayout) -> Tensor | None:
    """(H, W) float32 in [0, 1], 1 for opaque; None where the layout has none."""
    return planes[-1].float() / float(2**layout.depth - 1) if layout.alpha else None


@lru_cache
def chroma_in_rgb(matrix: str) -> tuple[tuple[float, float], tuple[float, float], tuple[float, float]]:
    """What U and V add to luma in R, in G and in B."""
    if matrix == "ycgco":
        return (-1.0, 1.0), (1.0, 0.0), (-1.0, -1.0)
    kr, kb = LUMA_WEIGHTS[matrix]
    kg = 1 - kr - kb
    return (0.0, 2 * (1 - kr)), (-2 * kb * (1 - kb) / kg, -2 * kr * (1 - kr) / kg), (2 * (1 - kb), 0.0)


@lru_cache
def yuv_rows(matrix: str) -> tuple[Row, Row, Row]:
    """The shares of R, G and B in Y, in U and in V."""
    if matrix == "ycgco":
        return (0.25, 0.5, 0.25), (-0.25, 0.5, -0.25), (0.5, 0.0, -0.5)
    kr, kb = LUMA_WEIGHTS[matrix]
    kg = 1 - kr - kb
    u, v = 2 * (1 - kb), 2 * (1 - kr)
    return (kr, kg, kb), (-kr / u, -kg / u, (1 - kb) / u), ((1 - kr) / v, -kg / v, -kb / v)


def threshold(height: int, width: int, frame: int, plane: int, device: torch.device) -> Tensor:
    """(height, width) float32 evenly spread over [-0.5, 0.5), another pattern for every frame and plane.

    Roberts, "The unreasonable effectiveness of quasirandom sequences", 2018: multiples of the plastic number's inverses
    modulo 1 fill every neighbourhood evenly. In integers, so that every machine gives the same.
    """
    x = torch.arange(width, device=device)
    y = torch.arange(height, device=device)[:, None]
    word = (x * 3242174889 + y * 2447445413 + frame * 2654435769 + plane * 1640531527) & 0xFFFFFFFF
    return (word >> 8).float() / 2**24 - 0.5


def _weighed(rgb: Tensor, row: Row) -> Tensor:
    return row[0] * rgb[0] + row[1] * rgb[1] + row[2] * rgb[2]


def _codes(values: Tensor, depth: int) -> Tensor:
    codes = values.round().clamp(0, 2**depth - 1)
    return codes.to(torch.uint8) if depth == 8 else codes.to(torch.int32).to(torch.uint16)


def _full_size(plane: Tensor, layout: PlaneLayout) -> Tensor:
    """A chroma plane at the size of luma, or up to a block larger."""
    for dim, shift, site in ((1, layout.chroma_x, layout.site_x), (0, layout.chroma_y, layout.site_y)):
        if shift == 0:
            continue
        if site is None:
            plane = plane.repeat_interleave(2**shift, dim=dim)
        elif site == 0.5:
            plane = _slopes(plane, 2**shift, dim)
        else:
            plane = _lines(plane, 2**shift, dim, site)
    return plane


def _slopes(plane: Tensor, factor: int, dim: int) -> Tensor:
    """Each sample ``factor`` times along ``dim``, as a slope whose mean is the sample and that never passes its neighbours."""
    repeated = plane.repeat_interleave(factor, dim=dim)
    size = plane.shape[dim]
    if size < 3:
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


def _lines(plane: Tensor, factor: int, dim: int, site: float) -> Tensor:
    """Straight lines from sample to sample, sample k at position ``factor * k + site * (factor - 1)``; flat beyond the last."""
    size = plane.shape[dim]
    position = (torch.arange(size * factor, device=plane.device) - site * (factor - 1)) / factor
    low = position.floor().long().clamp(0, size - 1)
    share = (position - low).clamp(0, 1)
    share = share[:, None] if dim == 0 else share
    return plane.index_select(dim, low) * (1 - share) + plane.index_select(dim, (low + 1).clamp(max=size - 1)) * share


def _chroma_size(chroma: Tensor, layout: PlaneLayout) -> Tensor:
    """(2, H, W) -> chroma resolution; an odd last row or column stands for its whole chroma sample."""
    for dim, shift, site in ((1, layout.chroma_y, layout.site_y), (2, layout.chroma_x, layout.site_x)):
        if shift == 0:
            continue
        if site is None or site == 0.5:
            chroma = _average(chroma, 2**shift, dim)
        else:
            chroma = _at_sites(chroma, 2**shift, dim, site, reach=1 if layout.chroma_kept else 2**shift)
    return chroma


def _average(chroma: Tensor, factor: int, dim: int) -> Tensor:
    missing = -chroma.shape[dim] % factor
    padded = F.pad(chroma[None], (0, missing, 0, 0) if dim == 2 else (0, 0, 0, missing), mode="replicate")
    return F.avg_pool2d(padded, (1, factor) if dim == 2 else (factor, 1))[0]


def _at_sites(chroma: Tensor, factor: int, dim: int, site: float, reach: int) -> Tensor:
    """Every ``factor``-th sample from ``site`` on, weighed with those nearer than ``reach`` by a triangle."""
    size = chroma.shape[dim]
    centre = torch.arange(-(-size // factor), device=chroma.device) * factor + round(site * (factor - 1))
    parts = [
        chroma.index_select(dim, (centre + offset).clamp(0, size - 1)) * ((reach - abs(offset)) / reach**2)
        for offset in range(1 - reach, reach)
    ]
    return torch.stack(parts).sum(dim=0) if len(parts) > 1 else parts[0]
