"""PSNR and SSIM as the published tables have them."""

import math

import numpy as np
import pytest
from PIL import Image
from tiny import picture

from swinir.metrics import luma, psnr, psnr_ssim_y, ssim
from swinir.resize import resize_uint8


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


@pytest.mark.parametrize(("scale", "published"), [(2, 33.67), (4, 28.43)])
def test_bicubic_on_set5_scores_what_the_tables_say(scale, published, shared):
    folder = shared / "data" / "images" / "Set5"
    scores = []
    for path in sorted((folder / "HR").iterdir()):
        lr = np.array(Image.open(folder / "LR_bicubic" / f"X{scale}" / f"{path.stem}x{scale}.png").convert("RGB"))
        hr = np.array(Image.open(path).convert("RGB"))[: lr.shape[0] * scale, : lr.shape[1] * scale]
        inner = slice(scale, -scale)
        scores.append(psnr(luma(resize_uint8(lr, scale))[inner, inner], luma(hr)[inner, inner]))
    assert round(float(np.mean(scores)), 2) == published
