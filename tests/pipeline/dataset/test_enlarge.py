"""Pictures made larger: baselines are exact, grey is exact, edges of transparent things have no halo, memory is bounded."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.config import ImagesConfig
from pipeline.dataset.enlarge import PADDING, check, enlarge, enlarge_many, target_size
from pipeline.dataset.hidden import filled
from swinir.resize import CUBIC, LANCZOS3, Kernel, resize_dim
from swinir.upscaler import Upscaler
from tests.pipeline.dataset.files import drawn, random_picture
from tests.swinir.tiny import network

BOTH_DEPTHS = pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
ALL_CHANNELS = pytest.mark.parametrize("channels", [1, 2, 3, 4])


def tiny(in_chans: int = 3, tile: int | None = None) -> Upscaler:
    return Upscaler.from_network(network(in_chans=in_chans), scale=2, in_chans=in_chans, tile=tile, precision="fp32")


@BOTH_DEPTHS
@ALL_CHANNELS
@pytest.mark.parametrize("model", ["identity", "nearest-x2", "nearest-x3"])
def test_baselines_are_bit_exact_hidden_colours_and_all(model: str, channels: int, dtype: type) -> None:
    pixels = random_picture(17, 23, channels, dtype)
    pixels.flags.writeable = False
    up = Upscaler(model, tile=16)
    large = enlarge(up, pixels, (23 * up.scale, 17 * up.scale))
    assert large.dtype == dtype
    assert np.array_equal(large, pixels.repeat(up.scale, axis=0).repeat(up.scale, axis=1))


@BOTH_DEPTHS
@pytest.mark.parametrize("size", [(46, 34), (60, 31), (10, 9), (1, 1), (200, 34)])
@pytest.mark.parametrize("model", ["nearest-x2", "bicubic-x2"])
def test_any_size_is_one_resample_of_the_models_floats_though_it_comes_in_bands(model, size, dtype) -> None:
    pixels = random_picture(17, 23, 3, dtype)
    up = Upscaler(model, tile=16)
    peak = np.iinfo(dtype).max
    x = torch.from_numpy(pixels.astype(np.float32)).movedim(-1, 0)[None] / peak
    exact = resized(up.upscale(x), size, LANCZOS3)
    expected = (exact * peak).round().clamp(0, peak)[0].movedim(0, -1).numpy()
    assert np.array_equal(enlarge(up, pixels, size), expected)


def resized(x: torch.Tensor, size: tuple[int, int], kernel: Kernel) -> torch.Tensor:
    """(N, C, H, W) to (width, height), whole."""
    for dim, length in ((-2, size[1]), (-1, size[0])):
        if x.shape[dim] != length:
            x = resize_dim(x, Fraction(length, x.shape[dim]), dim, kernel)
    return x


@BOTH_DEPTHS
def test_grey_stays_grey_through_an_rgb_model_and_back(dtype: type) -> None:
    grey = random_picture(40, 36, 1, dtype)
    up = tiny()
    peak = np.iinfo(dtype).max
    large = enlarge(up, grey, (72, 80))
    assert large.shape == (80, 72, 1)
    padded = np.pad(grey[..., 0], PADDING, mode="symmetric").astype(np.float32)
    three = up.upscale(torch.from_numpy(padded)[None, None].expand(1, 3, -1, -1) / peak).mean(dim=1)[0]
    inner = slice(2 * PADDING, -2 * PADDING)
    assert np.array_equal(large[..., 0], (three[inner, inner] * peak).round().clamp(0, peak).numpy())


@BOTH_DEPTHS
@pytest.mark.parametrize("in_chans", [1, 3])
def test_a_batch_gives_what_each_picture_gives_alone(in_chans: int, dtype: type) -> None:
    pictures = [random_picture(24, 30, 4, dtype) for _ in range(3)]
    pictures[1] = pictures[1][::-1].copy()
    up = tiny(in_chans)
    together = enlarge_many(up, pictures, (60, 48))
    for one, large in zip(pictures, together, strict=True):
        assert np.abs(enlarge(up, one, (60, 48)).astype(int) - large).max() <= (1 if dtype is np.uint8 else 64)


def test_f2_beside_a_network_alpha_is_bicubic_and_hidden_colours_do_not_bleed() -> None:
    """A red disc whose transparent surroundings hold green: what hides must not show, whatever hides there."""
    y, x = np.mgrid[:48, :48]
    inside = (x - 24) ** 2 + (y - 24) ** 2 < 200
    disc = np.where(inside[..., None], np.array([200, 30, 30, 255]), np.array([0, 255, 0, 0])).astype(np.uint8)
    other = np.where(inside[..., None], disc, np.array([255, 0, 255, 0])).astype(np.uint8)
    flat = np.broadcast_to(np.array([200, 30, 30], np.uint8), (48, 48, 3))
    for up in (tiny(), Upscaler("bicubic-x2")):
        large = enlarge(up, disc, (96, 96))
        assert np.array_equal(large[..., :3], enlarge(up, flat, (96, 96)))
        assert np.array_equal(large, enlarge(up, other, (96, 96)))
        alpha = resized(torch.from_numpy(disc[..., 3].astype(np.float32))[None, None] / 255, (96, 96), CUBIC)[0, 0]
        assert np.abs(large[..., 3] - (alpha * 255).round().clamp(0, 255).numpy()).max() <= 1


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_visible_colours_stay_and_hidden_ones_lie_between_them(height, width, seed, share) -> None:
    rng = np.random.default_rng(seed)
    colours = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    alpha = np.where(rng.random((height, width)) < share, rng.integers(1, 256, (height, width)), 0).astype(np.uint8)
    result = filled(colours, alpha)
    seen = alpha > 0
    assert np.array_equal(result[seen], colours[seen])
    if seen.any():
        assert (result >= colours[seen].min(axis=0)).all()
        assert (result <= colours[seen].max(axis=0)).all()
    else:
        assert np.array_equal(result, colours)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 300), (7, 8), (33, 5), (199, 3)])
def test_pictures_of_any_size_go_through_a_network(shape: tuple[int, int]) -> None:
    height, width = shape
    assert enlarge(tiny(), random_picture(height, width, 4, np.uint8), (2 * width, 2 * height)).shape == (
        2 * height,
        2 * width,
        4,
    )


def test_small_pictures_have_better_borders_for_their_padding(shared: Path) -> None:
    """On crops of photographs, whose continuation is known, against the truth; not whole windows, which need none."""
    folder = shared / "data" / "images" / "Set5"
    up = Upscaler("lightweight-x2", precision="fp32")
    border = np.ones((74, 74), np.bool_)
    border[4:-4, 4:-4] = False
    errors = np.zeros(2)
    for name in ("baby", "bird", "butterfly", "head", "woman"):
        small = np.array(Image.open(folder / "LR_bicubic" / "X2" / f"{name}x2.png").convert("RGB"))[40:77, 40:77]
        truth = np.array(Image.open(folder / "HR" / f"{name}.png").convert("RGB"))[80:154, 80:154].astype(float)
        errors += [np.square(picture - truth)[border].mean() for picture in (up(small), enlarge(up, small, (74, 74)))]
    assert errors[1] < 0.8 * errors[0]


@pytest.mark.parametrize(
    ("size", "settings", "expected"),
    [
        ((640, 480), {}, (1280, 960)),
        ((640, 480), {"scale": 3}, (1920, 1440)),
        ((101, 3), {"scale": 1.5}, (152, 5)),
        ((640, 480), {"target_long_side": 3840}, (3840, 2880)),
        ((480, 640), {"target_long_side": 1000}, (750, 1000)),
        ((9000, 2), {"target_long_side": 100}, (100, 1)),
    ],
)
def test_sizes_people_ask_for(size, settings, expected) -> None:
    assert target_size(*size, 2, ImagesConfig(**settings)) == expected


def test_the_check_sees_blur_and_colour_and_not_what_is_transparent() -> None:
    before = np.dstack([drawn(40, 40), np.full((40, 40), 255, np.uint8)])
    assert check(before, before.copy()) == (100.0, 0.0)
    redder = np.clip(before + np.array([7, 0, 0, 0]), 0, 255).astype(np.uint8)
    psnr_db, drift = check(before, redder)
    assert 30 < psnr_db < 50
    assert 5 < drift <= 7
    hidden = before.copy()
    hidden[10:30, 10:30, 3] = 0
    changed = hidden.copy()
    changed[10:30, 10:30, :3] = 99
    assert check(hidden, changed) == (100.0, 0.0)


MEASURE = """
import resource, sys
import numpy as np
from pipeline.dataset import enlarge as module
from pipeline.dataset.enlarge import check, enlarge
from swinir.upscaler import Upscaler
module.FEW_SAMPLES = 0  # so that pictures are large long before they are
height = int(sys.argv[1])
up = Upscaler("nearest-x2")
pixels = np.zeros((height, 256, 3), np.uint8)
pixels[::2] = 200
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
large = enlarge(up, pixels, (600, height * 2) if sys.argv[2] == "resampled" else (512, height * 2))
check(pixels, large)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(grown * 1024 - large.nbytes)
"""


@pytest.mark.parametrize("way", ["native", "resampled"])
def test_f4_a_large_picture_needs_bands_of_memory_beside_itself_and_its_result(way: str) -> None:
    beside = [
        int(
            subprocess.run([sys.executable, "-c", MEASURE, str(height), way], capture_output=True, check=True, text=True).stdout
        )
        for height in (1000, 6000)
    ]
    # As floats the taller picture alone would be 18 MB, its result 74 MB.
    assert beside[1] - beside[0] < 12e6, beside
