"""Degradations: pure, seeded, and each of them what its name says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tiny import NOTHING

from swinir.resize import resample
from swinir.train.degrade import (
    KERNELS,
    Degradation,
    combed,
    compressed,
    degrade,
    filtered,
    gaussian_kernel,
    half_chroma,
    noisy,
    on_codes,
    sinc_kernel,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def clip(num: int = 2, height: int = 48, width: int = 64) -> torch.Tensor:
    return torch.from_numpy(rng(7).random((num, 3, height, width), np.float32))


@pytest.mark.parametrize("seed", range(12))
def test_the_same_seed_gives_the_same_and_another_does_not(seed: int) -> None:
    first, again, other = (degrade(clip(), 2, Degradation(), rng(s)) for s in (seed, seed, seed + 100))
    assert first.shape == (2, 3, 24, 32)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(first, on_codes(first))


def test_without_any_share_only_the_size_changes() -> None:
    flat = torch.full((1, 3, 48, 64), 100 / 255)
    for seed in range(8):
        assert torch.equal(degrade(flat, 2, Degradation(**NOTHING), rng(seed)), torch.full((1, 3, 24, 32), 100 / 255))


def test_the_coder_gets_the_small_clip_on_the_grid_of_codes() -> None:
    seen: list[torch.Tensor] = []

    def coder(x: torch.Tensor, _: np.random.Generator) -> torch.Tensor:
        seen.append(x)
        return 1 - x

    out = degrade(clip(), 2, Degradation(**{**NOTHING, "video_share": 1.0}), rng(), coder)
    assert torch.equal(seen[0], on_codes(seen[0]))
    assert torch.equal(out, 1 - seen[0])


@pytest.mark.parametrize("kernel", [gaussian_kernel(1.5, 1.5, 0), gaussian_kernel(0.5, 2.0, 0.7), sinc_kernel(2.0)])
def test_blur_keeps_flat_areas_and_centres(kernel: torch.Tensor) -> None:
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-5)
    flat = torch.full((1, 3, 40, 52), 0.3)
    assert torch.allclose(filtered(flat, kernel), flat, atol=1e-5)
    point = torch.zeros(1, 1, 41, 53)
    point[..., 20, 26] = 1
    assert torch.allclose(filtered(point, kernel)[0, 0, 10:31, 16:37], kernel, atol=1e-5)


def test_an_uneven_blur_is_long_along_its_angle() -> None:
    kernel = gaussian_kernel(3.0, 0.5, math.pi / 2)  # along y
    assert kernel[:, 10].sum() > 0.7
    assert kernel[10].sum() < 0.2


def test_a_sinc_rings_beside_an_edge() -> None:
    edge = torch.zeros(1, 1, 40, 60)
    edge[..., 30:] = 1
    row = filtered(edge, sinc_kernel(math.pi / 2))[0, 0, 20]
    assert row.min() < -0.02
    assert row.max() > 1.02


@pytest.mark.parametrize("kernel", KERNELS)
def test_resizing_keeps_flat_areas_and_gives_the_size(kernel) -> None:
    out = resample(torch.full((1, 3, 48, 64), 0.4), 19, 31, kernel)
    assert out.shape == (1, 3, 19, 31)
    assert torch.allclose(out, torch.full_like(out, 0.4), atol=1e-5)


def test_noise_has_about_the_deviation_that_was_asked_for() -> None:
    grey = torch.full((2, 3, 64, 64), 0.5)
    for seed in range(12):
        noise = noisy(grey, 0.02, rng(seed)) - grey
        assert float(noise.mean()) == pytest.approx(0, abs=0.004)
        assert float(noise.std()) == pytest.approx(0.02, rel=0.1)


def test_half_chroma_keeps_luma_and_averages_colour() -> None:
    x = clip(1, 47, 63)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    out = half_chroma(x)
    assert torch.allclose((out * weights).sum(1), (x * weights).sum(1), atol=1e-5)
    colour = out - (out * weights).sum(1, keepdim=True)
    assert torch.allclose(colour[..., 0:46:2, 0:62:2], colour[..., 1:46:2, 1:62:2], atol=1e-5)


def test_combs_move_every_second_row() -> None:
    x = clip(1)
    out = combed(x, 3)
    assert torch.equal(out[..., 0::2, :], x[..., 0::2, :])
    assert torch.equal(out[..., 1::2, 3:], x[..., 1::2, :-3])
    for pixels in (0, x.shape[-1], x.shape[-1] + 10):
        assert torch.equal(combed(x, pixels), x)


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_compression_gets_worse_with_lower_quality(form: str) -> None:
    x = filtered(clip(1), gaussian_kernel(1.5, 1.5, 0))
    high, low = ((compressed(x, form, quality) - x).abs().mean() for quality in (95, 20))
    assert 0 < high < low


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"blur_share": 1.5}, "blur_share must be a probability, got 1.5"),
        ({"blur_sigma": [2, 1]}, r"blur_sigma must be two rising numbers above 0, got \[2, 1\]"),
        ({"still_share": 0.6, "video_share": 0.6}, "exclude each other"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Degradation(**wrong)
