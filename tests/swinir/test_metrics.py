"""PSNR, SSIM and PSNR-B as the published tables have them."""

import math

import numpy as np
import pytest
from tiny import picture

from swinir.metrics import blockiness, channels, luma, psnr, psnr_b, psnr_ssim_y, ssim


def test_luma_spans_16_to_235():
    image = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0]]], np.uint8)
    assert luma(image)[0].tolist() == pytest.approx([16, 235, 81.481])


def test_psnr_of_one_code_is_48_13_db():
    a = np.zeros((4, 4))
    assert psnr(a, a + 1) == pytest.approx(20 * math.log10(255))
    assert psnr(a, a) == math.inf


def test_ssim_is_one_for_equal_images_and_falls_with_noise():
    image = luma(picture(40, 50))
    noise = np.random.default_rng(0).normal(0, 8, image.shape)
    assert ssim(image, image) == pytest.approx(1)
    assert 1 > ssim(image, image + noise) > ssim(image, image + 3 * noise) > 0


def test_the_border_is_left_out():
    a = picture(40, 40)
    b = a.copy()
    b[:2], b[:, -2:] = 0, 255
    assert psnr_ssim_y(a, b, 2) == (math.inf, pytest.approx(1))
    assert psnr_ssim_y(a, b, 0)[0] < 30


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 4, 3\) and \(4, 5, 3\)"):
        psnr_ssim_y(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8), 0)


def blocks(height: int, width: int, step: float, first: int = 8) -> np.ndarray:
    """Columns of ``first``, 8, 8.. pixels that alternate between 100 and 100 + step."""
    odd = (np.arange(width) + 8 - first) // 8 % 2
    return np.tile(100 + step * odd, (height, 1)).astype(np.float64)


def test_a_step_at_every_border_of_blocks_counts_as_its_square():
    # 16x24: 2 borders of 16 pixels each across, 1 of 24 down, where nothing steps; by hand: 32 * 10^2 / 56, log 8 / log 16.
    assert blockiness(blocks(16, 24, 10)) == pytest.approx(3200 / 56 * 3 / 4)
    assert blockiness(blocks(16, 24, 10).T) == pytest.approx(3200 / 56 * 3 / 4)


def test_steps_beside_the_borders_are_no_blocks():
    assert blockiness(blocks(16, 24, 10, first=4)) == 0
    assert blockiness(np.full((16, 24), 9.0)) == 0
    assert blockiness(blocks(7, 7, 10)) == 0


def test_psnr_b_is_psnr_less_the_blocks_of_the_output_alone():
    flat, blocky = np.full((16, 24), 105.0), blocks(16, 24, 10)
    assert psnr_b(blocky, flat) == pytest.approx(10 * math.log10(255**2 / (25 + 3200 / 56 * 3 / 4)))
    assert psnr_b(flat, blocky) == psnr(flat, blocky)
    assert psnr_b(flat, flat) == math.inf
    assert psnr_b(blocky, blocky) == pytest.approx(10 * math.log10(255**2 / (3200 / 56 * 3 / 4)))


def test_channels_are_those_of_grey_and_of_colour():
    image = picture(3, 4)
    assert [c.tolist() for c in channels(image)] == [image[..., c].tolist() for c in range(3)]
    assert len(channels(image[..., 0])) == 1
