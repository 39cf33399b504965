"""The Triton kernels compute what the network computes, as Triton's interpreter sees them; a GPU uses them if they win."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import GOLDENS, from_golden, network

from swinir.gpu import blocks
from swinir.gpu.blocks import First, Join, TritonSwinIR
from swinir.gpu.choice import CHECKED_SIZE
from swinir.gpu.ordered import DIRECT_LAUNCHES, fits
from swinir.gpu.packing import LAUNCHES, Launch, parts

triton = pytest.importorskip("triton", reason="Triton is for Linux")
gelu, tl = pytest.importorskip("swinir.gpu.gelu").gelu, triton.language

NARROW = {"embed_dim": 60, "num_heads": (6, 6)}  # as the lightweight networks are
interpreted = pytest.mark.skipif(not triton.knobs.runtime.interpret, reason="there is a GPU to compile for")


@interpreted
@pytest.mark.parametrize("path", [path for path in GOLDENS if "large" not in path.stem], ids=lambda path: path.stem)
def test_the_kernels_match_the_goldens(path):
    model, x, truth = from_golden(path)
    with torch.inference_mode():
        assert np.abs(TritonSwinIR(model, torch.float32)(x).numpy() - truth).max() < 1e-5


@interpreted
@pytest.mark.parametrize(("windows", "whole"), [(1, True), (2, False)])
@pytest.mark.parametrize(
    ("size", "changes"),
    [
        ((3, 8, 8), {}),  # one window, which is interior, right, bottom and corner; and one too many for pairs
        ((2, 9, 15), {"num_heads": (3, 3)}),
        ((1, 16, 24), {"embed_dim": 20, "mlp_ratio": 2.5}),
        ((2, 13, 7), {"window_size": 7, "embed_dim": 34}),
        ((2, 5, 3), {"window_size": 4}),
        ((1, 8, 16), {"embed_dim": 64}),  # heads of 32: one more fills what would hold them
        ((2, 9, 8), {"resi_connection": "3conv"}),
    ],
)
def test_any_size_and_shape(size, changes, windows, whole):
    model, x = network(**changes), torch.rand(size[0], 3, *size[1:])
    with torch.inference_mode():
        launch = Launch(4, 1, windows)
        found = TritonSwinIR(model, torch.float32, launch, None if whole else launch)(x)
        torch.testing.assert_close(found.double(), model.double()(x.double()), rtol=0, atol=1e-5)


@interpreted
@pytest.mark.parametrize(
    ("size", "changes"),
    [
        ((2, 3, 8, 66), {"upsampler": "pixelshuffle", "embed_dim": 64}),  # as many channels as the head has
        ((1, 3, 8, 9), {"upsampler": "nearest+conv"}),
        ((1, 1, 66, 8), {"upsampler": "", "upscale": 1, "in_chans": 1}),
        ((2, 3, 9, 8), {"upsampler": "", "upscale": 1, "img_range": 8.0}),
        ((2, 3, 9, 67), {"img_range": 8.0}),
        ((1, 3, 9, 8), {"img_range": 8.0, "upsampler": "pixelshuffle"}),
        ((1, 3, 8, 66), {"upscale": 4}),
        ((1, 3, 8, 9), {"upscale": 3}),
        ((1, 4, 8, 9), {"in_chans": 4, "embed_dim": 34, "num_heads": (2, 2)}),
    ],
)
def test_any_head_and_colours(size, changes):
    model, x = network(**changes), torch.rand(size)
    with torch.inference_mode():
        found = TritonSwinIR(model, torch.float32)(x)
        torch.testing.assert_close(found.double(), model.double()(x.double()), rtol=0, atol=1e-5)


@interpreted
@pytest.mark.parametrize(
    ("size", "changes"),
    [
        ((3, 8, 8), {}),  # one window, which is interior, right, bottom and corner
        ((2, 9, 31), {"embed_dim": 48, "num_heads": (4, 4), "mlp_ratio": 3.5}),
        ((1, 24, 24), {"embed_dim": 56, "num_heads": (8, 4)}),
    ],
)
def test_the_direct_kernel_computes_the_same(size, changes):
    model, x = network(**NARROW | changes), torch.rand(size[0], 3, *size[1:])
    with torch.inference_mode():
        found = TritonSwinIR(model, torch.float32, DIRECT_LAUNCHES[0])(x)
        torch.testing.assert_close(found.double(), model.double()(x.double()), rtol=0, atol=1e-5)


@interpreted
def test_the_direct_kernel_leaves_channels_that_are_padding_at_0_and_works_in_place(bfloat16_products):
    model, launch = network(**NARROW), DIRECT_LAUNCHES[0]
    x = torch.nn.functional.pad(torch.randn(2, 16, 8, 60), (0, 4)).bfloat16()
    for block in TritonSwinIR(model, torch.bfloat16, launch).groups[0][0]:
        out = torch.full_like(x, 9.0)
        block.attend(x, out, launch, whole=True)
        assert not out[..., 60:].any()
        block.attend(x, x, launch, whole=True)
        assert torch.equal(x, out)


def test_the_direct_kernel_is_for_networks_like_those_that_it_was_tried_with():
    others = [
        {"embed_dim": 180}, {"embed_dim": 36}, {"num_heads": (5, 6)}, {"num_heads": (2, 2)}, {"window_size": 7},
        {"embed_dim": 62, "num_heads": (2, 62)}, {"embed_dim": 64, "num_heads": (4, 4)}, {"mlp_ratio": 64 / 60},
    ]  # fmt: skip
    assert fits(network(**NARROW).config)
    assert not any(fits(network(**NARROW | changes).config) for changes in others)


@triton.jit
def gelu_kernel(x, out, NUM: tl.constexpr):
    places = tl.arange(0, NUM)
    tl.store(out + places, gelu(tl.load(x + places), False))


@pytest.mark.parametrize("device", [pytest.param("cpu", marks=interpreted), pytest.param("cuda", marks=pytest.mark.gpu)])
def test_gelu_in_float16_is_near_enough(device):
    x = torch.linspace(-10, 10, 4096, device=device).sinh()  # to what squared is beyond float16
    out = torch.empty_like(x, dtype=torch.float16)
    gelu_kernel[1,](x, out, NUM=4096)
    torch.testing.assert_close(out.double(), torch.nn.functional.gelu(x.double()), rtol=1e-3, atol=3e-3)


@interpreted
@pytest.mark.parametrize(
    ("width", "launch", "upsampler"),
    [
        (36, LAUNCHES[0], "pixelshuffledirect"), (60, LAUNCHES[0], "pixelshuffledirect"),
        (60, DIRECT_LAUNCHES[0], "pixelshuffledirect"), (60, DIRECT_LAUNCHES[0], "pixelshuffle"),
    ],
)  # fmt: skip
def test_bfloat16_costs_what_it_does_in_pytorch(bfloat16_products, width, launch, upsampler):
    changes = {"embed_dim": width, "num_heads": (6, 6), "upsampler": upsampler}
    model, x = network(**changes), torch.rand(1, 3, 16, 24)
    with torch.inference_mode():
        found = TritonSwinIR(model, torch.bfloat16, launch)(x)
        rounded = network(**changes).set_body_dtype(torch.bfloat16)(x)
        truth = model.double()(x.double())
    errors = [float((each - truth).square().mean().sqrt()) for each in (found, rounded)]
    assert 0 < errors[0] < 2.5 * errors[1]  # the interpreter cuts off what a GPU rounds to nearest


@interpreted
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("dim", [12, 60, 180, 240])
def test_what_lies_between_blocks_and_convolutions(dim, norm):
    layer = torch.nn.LayerNorm(dim).requires_grad_(False)
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    bias, more = torch.randn(dim), sum(parts(dim + 2)) - dim
    join = Join(bias, layer if norm else None)
    x, y = torch.randn(2, 3, 5, 7, dim) + 3  # neither whole blocks nor whole windows
    padded, padded_y = torch.nn.functional.pad(torch.stack([x, y]), (0, more))
    truth = x + bias + y
    join(padded, padded_y)
    torch.testing.assert_close(padded[..., :dim], layer(truth) if norm else truth, rtol=0, atol=1e-5)
    assert not padded[..., dim:].any()


@interpreted
@pytest.mark.parametrize(
    ("dim", "chans", "img_range"), [(12, 1, 1.0), (60, 3, 1.0), (62, 4, 2.0), (180, 3, 4.0), (240, 1, 1.0)]
)
def test_the_first_convolution_before_the_body_and_again_behind_it(dim, chans, img_range):
    model = network(embed_dim=dim, in_chans=chans, img_range=img_range, depths=(1,), num_heads=(2,))
    first = First(model, "ieee")
    x, y = torch.rand(2, chans, 3, 67), torch.randn(2, 3, 67, dim)  # a part of a row is not whole
    shallow = model.conv_first((x - model.mean) * img_range).permute(0, 2, 3, 1)
    truths = model.patch_embed.norm(shallow), shallow + model.conv_after_body.bias + y
    padded_y = torch.nn.functional.pad(y, (0, sum(parts(dim + 2)) - dim))
    out = torch.full_like(padded_y, 9.0)
    for run, truth in zip((lambda: first(x, out), lambda: first.again(x, padded_y, out)), truths, strict=True):
        run()
        torch.testing.assert_close(out[..., :dim], truth, rtol=0, atol=1e-5)
        assert not out[..., dim:].any()


@interpreted
@pytest.mark.parametrize(("changes", "launch"), [({}, LAUNCHES[0]), (NARROW, DIRECT_LAUNCHES[0])])
@pytest.mark.parametrize("offset", [500.0, -500.0, -78.0])
def test_scores_beyond_what_float32_holds_come_out_as_no_number_and_not_as_a_wrong_one(offset, changes, launch):
    model, x = network(**changes), torch.rand(1, 3, 8, 16)
    for name, parameter in model.named_parameters():
        if name.endswith("relative_position_bias_table"):
            parameter.data += offset  # which a softmax does not see
    with torch.inference_mode(), np.errstate(all="ignore"):
        assert not TritonSwinIR(model, torch.float32, launch)(x).isfinite().any()


@interpreted
@pytest.mark.parametrize("upsampler", ["pixelshuffledirect", "pixelshuffle"])
def test_features_beyond_what_float16_holds_come_out_as_no_number(bfloat16_products, upsampler):
    model, x = network(upsampler=upsampler), torch.rand(1, 3, 8, 16)
    model.conv_after_body.bias.data += 1e5
    with torch.inference_mode(), np.errstate(all="ignore"):
        assert not TritonSwinIR(model, torch.bfloat16)(x).isfinite().any()


def test_the_network_itself_is_left_as_it_was():
    model = network()
    TritonSwinIR(model, torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_parts_of_channels():
    sizes = {12: (16, 0), 36: (32, 16), 62: (64, 0), 66: (64, 16), 97: (128, 0), 182: (128, 64), 242: (256, 0)}
    assert {size: parts(size) for size in sizes} == sizes


@pytest.mark.parametrize(("name", "limit"), [("MAX_PLACES", 16 * 16 * 12), ("MAX_PROGRAMS", 2)])
def test_a_picture_of_more_places_than_the_kernels_count_goes_without_them(monkeypatch, name, limit):
    model, x = network(), torch.rand(1, 3, 16, 16)
    monkeypatch.setattr(blocks, name, limit)
    monkeypatch.setattr(blocks.PackedBlock, "attend", None)
    with torch.inference_mode():
        torch.testing.assert_close(TritonSwinIR(model, torch.float32)(x), model(x))


@pytest.mark.slow
@pytest.mark.parametrize("launches", [(0, 2), (2, 4)])
def test_the_kernels_compile_for_a_gpu_that_is_not_there(launches, tmp_path):
    root = Path(__file__).resolve().parents[3]
    env = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, root / "tests/swinir/gpu/hopper.py", *map(str, launches)],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("changes", [NARROW, NARROW | {"num_heads": (4, 12)}, NARROW | {"embed_dim": 180}])
def test_on_a_gpu_the_compiled_kernels_are_as_exact_as_pytorch(changes):
    model = network(**changes).cuda()
    x = torch.rand(1, 3, *CHECKED_SIZE, device="cuda")
    with torch.inference_mode():
        rounded = network(**changes).set_body_dtype(torch.bfloat16).cuda()(x)
        truth = model.double()(x.double())
        model.float()
        direct = ((each, True) for each in DIRECT_LAUNCHES if fits(model.config))
        for launch, whole in (*itertools.product(LAUNCHES, (True, False)), *direct):
            try:
                found = TritonSwinIR(model, torch.bfloat16, launch, None if whole else launch)(x)
            except triton.runtime.errors.OutOfResources:  # less shared memory than Hopper has
                continue
            errors = [float((each - truth).square().mean().sqrt()) for each in (found, rounded)]
            assert errors[0] < 1.2 * errors[1]
