"""Bicubic resizing is MATLAB's, bit for bit."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from swinir.resize import resample, resize, resize_dim, resize_uint8


@pytest.mark.parametrize("name", ["baby", "bird", "butterfly", "head", "woman"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_set5_is_reduced_to_the_published_files_bit_for_bit(name, scale, shared):
    folder = shared / "data" / "images" / "Set5"
    hr = np.array(Image.open(folder / "HR" / f"{name}.png").convert("RGB"))
    published = np.array(Image.open(folder / "LR_bicubic" / f"X{scale}" / f"{name}x{scale}.png").convert("RGB"))
    height, width = (size // scale * scale for size in hr.shape[:2])
    assert np.array_equal(resize_uint8(hr[:height, :width], Fraction(1, scale)), published)


def test_halving_a_ramp_gives_known_values():
    ramp = np.arange(0, 160, 10, dtype=np.uint8)[None].repeat(4, axis=0)
    assert resize_uint8(ramp, Fraction(1, 2))[0].tolist() == [4, 25, 45, 65, 85, 105, 125, 146]


def test_doubling_an_edge_overshoots_by_known_values():
    edge = torch.tensor([0.0, 0, 0, 1, 1, 1], dtype=torch.float64)
    expected = [0, 0, 0, -0.0234375, -0.0703125, 0.203125, 0.796875, 1.0703125, 1.0234375, 1, 1, 1]
    assert resize_dim(edge, 2, 0).tolist() == pytest.approx(expected, abs=1e-12)


def test_a_flat_image_stays_flat_at_any_scale():
    flat = torch.full((1, 7, 5), 0.3, dtype=torch.float64)
    for scale in (2, 3, Fraction(1, 2), Fraction(2, 3), Fraction(1, 7)):
        out = resize(flat, scale)
        torch.testing.assert_close(out, torch.full_like(out, 0.3), rtol=0, atol=1e-12)


def test_no_size_or_scale_of_zero():
    with pytest.raises(ValueError, match="must be positive"):
        resize(torch.zeros(1, 4, 4), 0)


def test_lanczos_is_pillows():
    """Pillow resamples floats with the same kernel; it cuts the kernel at the border instead of mirroring the picture."""
    x = torch.rand(1, 40, 60, generator=torch.Generator().manual_seed(3))
    for height, width in ((60, 90), (27, 41), (40, 33)):
        pillow = np.array(Image.fromarray(x[0].numpy()).resize((width, height), Image.Resampling.LANCZOS))
        ours = resample(x, height, width)[0].numpy()
        assert np.abs(ours - pillow)[6:-6, 6:-6].max() < 2e-6
    assert resample(x, 40, 60) is x


def test_lanczos_keeps_flat_pictures_flat_and_overshoots_freely():
    flat = torch.full((3, 9, 7), 0.3)
    torch.testing.assert_close(resample(flat, 20, 5), torch.full((3, 20, 5), 0.3))
    assert resample(torch.tensor([0.0, 0, 0, 1, 1, 1]).expand(1, 6, 6), 12, 12).max() > 1.02
