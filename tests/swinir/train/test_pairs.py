"""Pairs to train on: places agree, the same for the same seed, and a sheet to look at."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import NOTHING

from swinir.metrics import psnr_ssim_y
from swinir.resize import resize_uint8
from swinir.train.degrade import Degradation
from swinir.train.pairs import degraded_pairs, panned_clip, write_sheet


def picture(height: int, width: int) -> np.ndarray:
    """Waves, so that a shift of one pixel shows."""
    y, x = np.mgrid[:height, :width]
    wave = 127 + 60 * np.sin(x / 5 + y / 9) + 60 * np.cos(y / 4)
    return np.stack([wave, wave[::-1], wave.clip(50, 200)], axis=2).astype(np.uint8)


def test_small_and_large_show_the_same_place() -> None:
    for lr, hr in degraded_pairs([picture(420, 500), picture(100, 130)], 2, Degradation(**NOTHING), 3, seed=1):
        assert (hr.shape[0], hr.shape[1]) == (2 * lr.shape[0], 2 * lr.shape[1])
        assert psnr_ssim_y(resize_uint8(lr, 2), hr, 4)[0] > 38


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_every_scale_divides_what_a_codec_can_take(scale: int) -> None:
    pairs = list(degraded_pairs([picture(209, 300), picture(1600, 1700)], scale, Degradation(**NOTHING), 1, seed=0))
    for lr, hr in pairs:
        assert hr.shape[:2] == (scale * lr.shape[0], scale * lr.shape[1])
        assert lr.shape[0] % 2 == lr.shape[1] % 2 == 0
    assert [lr.shape[0] for lr, _ in pairs] == [208 // math.lcm(8, 2 * scale) * math.lcm(8, 2 * scale) // scale, 192]


def test_pictures_too_small_to_be_coded_give_none() -> None:
    assert not list(degraded_pairs([picture(31, 200), picture(5, 5)], 2, Degradation(), 3, seed=0))
    assert len(list(degraded_pairs([picture(32, 33)], 2, Degradation(), 3, seed=0))) == 3


def test_the_same_seed_gives_the_same_pairs() -> None:
    first, again, other = (list(degraded_pairs([picture(100, 130)], 2, Degradation(), 4, seed)) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for one, two in zip(first, again, strict=True) for a, b in zip(one, two, strict=True))
    assert not all(np.array_equal(a[0], b[0]) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("seed", range(20))
def test_the_camera_moves_evenly_within_the_picture(seed: int) -> None:
    y, x = np.mgrid[:120, :200]
    frames = panned_clip(np.stack([x, y, y], axis=2).astype(np.uint8), 96, 8, np.random.default_rng(seed))
    corners = (frames[:, :2, 0, 0] * 255).round()
    assert frames.shape == (5, 3, 96, 96)
    assert len(torch.unique(corners.diff(dim=0), dim=0)) == 1


def test_the_sheet_is_a_picture(tmp_path: Path) -> None:
    pairs = list(degraded_pairs([picture(100, 130)], 2, Degradation(), 5, 0))
    write_sheet(pairs, tmp_path / "pairs.png", length=32)
    with Image.open(tmp_path / "pairs.png") as sheet:
        assert sheet.size == (4 * (2 * 64 + 4), 2 * (64 + 4))
