"""The network computes what the published one does, for any size, and builds nothing twice."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import GOLDEN, as_tensor, from_golden, network, picture, psnr

from swinir import windows
from swinir.checkpoint import parameter_shapes
from swinir.model import SwinIRConfig
from swinir.presets import preset
from swinir.windows import window_layout

# The published models, by the names that the goldens have for them.
PUBLISHED = {
    "classical_x2": "classical-x2", "classical_x3": "classical-x3",
    "classical_x4": "classical-x4", "classical_x8": "classical-x8",
    "lightweight_x2": "lightweight-x2", "lightweight_x3": "lightweight-x3", "lightweight_x4": "lightweight-x4",
    "real_x2": "real-x2", "real_x4": "real-x4", "real_large_x4": "real-large-x4", "gray_dn": "denoise-gray-15",
    "color_dn": "denoise-color-50", "gray_jpeg": "jpeg-gray-10", "color_jpeg": "jpeg-color-40",
}  # fmt: skip
# Float32 against float64 is 3.3e-6 at most; a wrong mask or bias moves the output by 2e-4 or more.
ATOL = 1e-5


def assert_golden(path: Path) -> None:
    model, x, truth = from_golden(path)
    with torch.inference_mode():
        output = model(x).numpy()
    assert output.shape == truth.shape
    error = np.abs(output - truth)
    at = tuple(int(i) for i in np.unravel_index(error.argmax(), error.shape))
    assert error.max() < ATOL, f"max error {error.max():.1e} at {at} exceeds {ATOL}; mean {error.mean():.1e}"


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_kind_of_network_matches_its_golden(name):
    assert_golden(GOLDEN / f"{name}.npz")


QUICK = ("lightweight_x2", "gray_jpeg", "real_x2")  # the others take a second or more each


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in PUBLISHED if n != "lightweight_x3"]
)
def test_the_published_depth_matches_the_reference(name, shared):
    assert_golden(shared / "golden" / f"{name}.npz")


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_names_and_shapes_are_the_published_ones(name):
    shapes = sorted(parameter_shapes(preset(PUBLISHED[name]).config).items())
    text = "\n".join(f"{key} {shape}" for key, shape in shapes)
    expected = json.loads((GOLDEN / "published_keys.json").read_text())[name]
    assert f"{len(shapes)} {hashlib.sha256(text.encode()).hexdigest()}" == expected


def test_an_unknown_argument_is_an_error():
    with pytest.raises(TypeError, match="img_size"):
        SwinIRConfig(upscale=2, img_size=64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"upsampler": "bilinear"}, "unknown upsampler 'bilinear'"),
        ({"upscale": 3, "upsampler": "nearest+conv"}, "upscale 2 and 4, got 3"),
        ({"upscale": 5, "upsampler": "pixelshuffle"}, "2, 3, 4 and 8, got 5"),
        ({"upscale": 2, "upsampler": ""}, "needs an upsampler"),
        ({"embed_dim": 13}, "multiple of every num_heads"),
        ({"num_heads": (2,)}, "one entry per group"),
        ({"resi_connection": "2conv"}, "'1conv' or '3conv'"),
    ],
)
def test_a_configuration_that_is_no_network_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        network(**changes)


def test_input_that_fits_the_windows_is_not_padded(small_network):
    seen = []
    handle = small_network.conv_first.register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape[-2:])))
    small_network(torch.rand(1, 3, 64, 24))
    small_network(torch.rand(1, 3, 63, 25))
    handle.remove()
    assert seen == [(64, 24), (64, 32)]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (7, 8), (8, 8), (3, 40)])
def test_any_size_from_one_pixel_works(height, width, small_network):
    output = small_network(torch.rand(2, 3, height, width))
    assert output.shape == (2, 3, 2 * height, 2 * width)
    assert output.isfinite().all()


def test_a_second_image_of_a_size_builds_no_layout_and_no_mask(small_network, monkeypatch):
    x = torch.rand(1, 3, 40, 48)
    first = small_network(x)
    misses = window_layout.cache_info().misses
    monkeypatch.setattr(windows, "shift_masks", None)
    torch.testing.assert_close(small_network(x), first, rtol=0, atol=0)
    assert window_layout.cache_info().misses == misses


def test_unshifted_windows_have_no_mask_and_shifted_ones_four_at_most():
    plain = window_layout(1, 32, 40, 8, 0, torch.device("cpu"))
    shifted = window_layout(1, 32, 40, 8, 4, torch.device("cpu"))
    assert [mask for _, _, mask in plain.mask_runs] == [None]
    masks = [mask for _, _, mask in shifted.mask_runs]
    assert masks[0] is None
    assert [tuple(mask.shape) for mask in masks[1:]] == [(64, 64)] * 3


def test_images_of_a_batch_do_not_see_each_other(small_network):
    x = torch.rand(3, 3, 24, 17)
    alone = torch.cat([small_network(image[None]) for image in x])
    torch.testing.assert_close(small_network(x), alone, rtol=0, atol=2e-6)


def test_a_bfloat16_body_stays_close_and_the_ends_stay_float32():
    x = as_tensor(picture(40, 56))
    model = network()
    exact = model(x)
    fast = model.set_body_dtype(torch.bfloat16)
    assert fast.conv_first.weight.dtype == torch.float32
    assert fast.layers[0].residual_group.blocks[0].mlp.fc1.weight.dtype == torch.bfloat16
    output = fast(x)
    assert output.dtype == torch.float32
    assert psnr(output, exact) > 45


def test_float16_is_refused():
    with pytest.raises(ValueError, match="float16"):
        network().set_body_dtype(torch.float16)


def test_training_and_evaluation_compute_the_same():
    model = network()
    x = torch.rand(1, 3, 24, 24)
    torch.testing.assert_close(model.train()(x), model.eval()(x), rtol=0, atol=1e-5)
