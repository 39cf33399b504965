"""Pictures made worse the way old, compressed and noisy ones are, to train on.

Zhang et al., "Designing a practical degradation model for deep blind image super-resolution" (BSRGAN), arXiv 2103.14006,
section 3; Wang et al., "Real-ESRGAN", arXiv 2107.10833, section 3 (second order, sinc ringing). Milder than both: fidelity is
what we are after. Every function works on (N, 3, H, W) float32 RGB in [0, 1], the frames of a clip or one picture, and is pure:
chance comes as ``rng``.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from swinir.codes import to_codes
from swinir.resize import CUBIC, LANCZOS3, Kernel, resample

Rng = np.random.Generator
Coder = Callable[[Tensor, Rng], Tensor]  # a clip through a video codec drawn by chance, of the same shape

KERNEL_SIZE = 21  # pixels, as in Real-ESRGAN


def box(x: Tensor) -> Tensor:
    """Every pixel covers its square; half of one on a border, so that weights stay symmetric."""
    return ((x.abs() < 0.5).to(x) + (x.abs() <= 0.5).to(x)) / 2


def triangle(x: Tensor) -> Tensor:
    """Linear interpolation."""
    return (1 - x.abs()).clamp(min=0)


KERNELS: tuple[Kernel, ...] = ((box, 2.0), (triangle, 2.0), CUBIC, LANCZOS3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Degradation:
    """How often and how much. Shares are probabilities, pairs are ranges that values are drawn from."""

    blur_share: float = 0.2
    blur_sigma: tuple[float, float] = (0.3, 1.2)  # large pixels
    uneven_share: float = 0.4  # of the blurs: not the same in all directions
    ringing_share: float = 0.03
    detour_share: float = 0.1  # by another size first
    detour_scale: tuple[float, float] = (0.7, 1.2)  # of the small size
    noise_share: float = 0.15
    noise_codes: tuple[float, float] = (0.5, 6.0)  # standard deviation, of 255
    chroma_share: float = 0.1  # colour at half the resolution
    comb_share: float = 0.02  # the two fields of a frame apart
    comb_pixels: tuple[float, float] = (1.0, 4.0)
    still_share: float = 0.1  # JPEG or WebP
    quality: tuple[float, float] = (30.0, 95.0)
    video_share: float = 0.85
    again_share: float = 0.05  # all of it but the reduction a first time

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_share"):
                if not isinstance(value, int | float) or not 0 <= value <= 1:
                    raise ValueError(f"{field.name} must be a probability, got {value!r}")
                continue
            if not isinstance(value, Sequence) or not all(isinstance(end, int | float) for end in value):
                raise ValueError(f"{field.name} must be two rising numbers above 0, got {value!r}")
            object.__setattr__(self, field.name, tuple(value))  # YAML and JSON have lists
            if len(value) != 2 or not 0 < value[0] <= value[1] < math.inf:
                raise ValueError(f"{field.name} must be two rising numbers above 0, got {list(value)}")
        if self.quality[1] > 100:
            raise ValueError(f"quality must be 100 or less, got {list(self.quality)}")
        if self.still_share + self.video_share > 1:
            raise ValueError(f"still_share and video_share exclude each other, but {self.still_share} + {self.video_share} > 1")


def degrade(clip: Tensor, scale: int, how: Degradation, rng: Rng, coder: Coder | None = None) -> Tensor:
    """A clip (N, 3, H, W), H and W multiples of ``scale``, as (N, 3, H / scale, W / scale), on the 8-bit grid.

    Without a ``coder`` clips that would go through a video codec go through JPEG.
    """
    height, width = clip.shape[-2] // scale, clip.shape[-1] // scale
    if rng.random() < how.again_share:
        clip = _worsened(_blurred(clip, how, rng), how, rng, coder)
    clip = _blurred(clip, how, rng)
    if rng.random() < how.detour_share:
        by = rng.uniform(*how.detour_scale)
        clip = resample(clip, max(1, round(height * by)), max(1, round(width * by)), _kernel(rng))
    clip = resample(clip, height, width, _kernel(rng))
    if rng.random() < how.comb_share:
        clip = combed(clip, round(rng.uniform(*how.comb_pixels)))
    return _worsened(clip, how, rng, coder)


def _kernel(rng: Rng) -> Kernel:
    return KERNELS[int(rng.integers(len(KERNELS)))]


def _blurred(clip: Tensor, how: Degradation, rng: Rng) -> Tensor:
    if rng.random() < how.blur_share:
        sigma = rng.uniform(*how.blur_sigma)
        other = rng.uniform(*how.blur_sigma) if rng.random() < how.uneven_share else sigma
        clip = filtered(clip, gaussian_kernel(sigma, other, rng.uniform(0, math.pi)))
    if rng.random() < how.ringing_share:
        clip = filtered(clip, sinc_kernel(rng.uniform(math.pi / 2, math.pi)))
    return clip


def _worsened(clip: Tensor, how: Degradation, rng: Rng, coder: Coder | None) -> Tensor:
    if rng.random() < how.noise_share:
        clip = noisy(clip, rng.uniform(*how.noise_codes) / 255, rng)
    if rng.random() < how.chroma_share:
        clip = half_chroma(clip)
    clip = on_codes(clip)
    kind = rng.random()
    if kind < how.video_share:
        return coder(clip, rng) if coder else compressed(clip, "JPEG", round(rng.uniform(*how.quality)))
    if kind < how.video_share + how.still_share:
        return compressed(clip, "JPEG" if rng.random() < 0.75 else "WEBP", round(rng.uniform(*how.quality)))
    return clip


def on_codes(x: Tensor) -> Tensor:
    """Rounded to the nearest of 256 codes and clamped."""
    return (x * 255).round().clamp(0, 255) / 255


def gaussian_kernel(sigma_x: float, sigma_y: float, angle: float) -> Tensor:
    """(KERNEL_SIZE, KERNEL_SIZE), sum 1: standard deviations in pixels along axes turned by ``angle`` radians."""
    y, x = _grid()
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    kernel = torch.exp(-0.5 * ((along / sigma_x) ** 2 + (across / sigma_y) ** 2))
    normal: Tensor = kernel / kernel.sum()
    return normal


def sinc_kernel(cutoff: float) -> Tensor:
    """The circular low-pass filter of ``cutoff`` radians a pixel, cut short at the kernel's border: it rings (Real-ESRGAN)."""
    y, x = _grid()
    r = torch.hypot(x, y)
    kernel = cutoff * torch.special.bessel_j1(cutoff * r) / (2 * math.pi * r.clamp(min=1e-9))
    kernel[KERNEL_SIZE // 2, KERNEL_SIZE // 2] = cutoff**2 / (4 * math.pi)
    normal: Tensor = kernel / kernel.sum()
    return normal


def _grid() -> tuple[Tensor, Tensor]:
    places = torch.arange(KERNEL_SIZE, dtype=torch.float32) - KERNEL_SIZE // 2
    return places[:, None], places[None]


def filtered(x: Tensor, kernel: Tensor) -> Tensor:
    """Every channel by itself, borders mirrored; H and W larger than half the kernel."""
    margin = KERNEL_SIZE // 2
    flat = F.pad(x.reshape(-1, 1, *x.shape[-2:]), (margin,) * 4, mode="reflect")
    # By Fourier transforms: PyTorch's convolution of one channel takes fifty times as long.
    shape = flat.shape[-2:]
    product = torch.fft.rfft2(flat) * torch.fft.rfft2(kernel.flip(0, 1), s=shape)
    whole: Tensor = torch.fft.irfft2(product, s=shape)
    return whole[..., 2 * margin :, 2 * margin :].reshape(x.shape)


def noisy(x: Tensor, sigma: float, rng: Rng) -> Tensor:
    """Noise of about that standard deviation: of a sensor, of light (Poisson), or correlated as after demosaicing and scaling.

    In half the cases the same in all channels.
    """
    shape = (len(x), 1 if rng.random() < 0.5 else 3, *x.shape[-2:])
    noise = torch.from_numpy(rng.standard_normal(shape, np.float32))
    match int(rng.integers(3)):
        case 0:
            return x + sigma * noise
        case 1:  # its deviation goes with the root of the brightness; sigma is that of a middle grey
            brightness = x.clamp(0, 1) if shape[1] == 3 else x.clamp(0, 1).mean(dim=1, keepdim=True)
            return x + sigma * noise * (brightness / 0.5).sqrt()
        case _:
            smooth = filtered(noise, gaussian_kernel(0.8, 0.8, 0.0))
            return x + sigma * smooth / smooth.std()


def luma_of(x: Tensor) -> Tensor:
    """(N, 1, H, W) in the range of ``x``, by the weights of BT.601."""
    return (x * x.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)


def half_chroma(x: Tensor) -> Tensor:
    """Colour differences (BT.601) averaged over squares of two pixels; an odd last row or column stays."""
    luma = luma_of(x)
    colour = x - luma
    height, width = (size // 2 * 2 for size in x.shape[-2:])
    mean = F.avg_pool2d(colour[..., :height, :width], 2)
    colour = colour.clone()
    colour[..., :height, :width] = mean.repeat_interleave(2, -1).repeat_interleave(2, -2)
    return luma + colour


def combed(x: Tensor, pixels: int) -> Tensor:
    """Every second row moved sideways, where it is longer than that: two fields of a moving picture shown as one frame."""
    moved = x.clone()
    moved[..., 1::2, pixels:] = x[..., 1::2, : max(0, x.shape[-1] - pixels)]
    return moved


def compressed(x: Tensor, form: str, quality: int) -> Tensor:
    """Each picture through a lossy file format of Pillow's, "JPEG" or "WEBP"."""
    out = []
    for picture in to_codes(x, np.dtype(np.uint8)):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, form, quality=quality)
        out.append(np.asarray(Image.open(file).convert("RGB")))
    return torch.from_numpy(np.stack(out)).permute(0, 3, 1, 2).float() / 255
