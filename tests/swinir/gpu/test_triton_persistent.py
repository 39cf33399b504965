"""The kernel of one program a multiprocessor computes what the network does, as PyTorch runs its text and on a GPU."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from gluon_as_torch import Kernel, as_torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import network

import swinir.gpu
from swinir.gpu.blocks import TritonSwinIR
from swinir.gpu.choice import CHECKED_SIZE
from swinir.gpu.ordered import DIRECT_LAUNCHES, can_walk
from swinir.windows import window_layout

triton = pytest.importorskip("triton", reason="Triton is for Linux")

interpreted = pytest.mark.skipif(not triton.knobs.runtime.interpret, reason="there is a GPU to compile for")
LIGHT = {"embed_dim": 60, "num_heads": (6, 6), "mlp_ratio": 2}
DIRECT, PERSISTENT = DIRECT_LAUNCHES[0], DIRECT_LAUNCHES[-1]


@pytest.fixture
def walks(monkeypatch, bfloat16_products):
    """How many windows each launch had, on a GPU of two multiprocessors, which wants 16."""
    module = as_torch(monkeypatch, Path(swinir.gpu.__file__).with_name("persistent.py"), 2)
    launches = []

    def noted(*arguments):
        launches.append(arguments[-1]) if module.gl.program_id(0) == 0 else None
        module.persistent_kernel(*arguments)

    monkeypatch.setitem(sys.modules, "swinir.gpu.persistent", SimpleNamespace(persistent_kernel=Kernel(module, noted)))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(major=9, multi_processor_count=2))
    return launches


def features(batch, height, width, device="cpu"):
    x = torch.randn((batch, height, width, 60), generator=torch.Generator().manual_seed(0)) + 0.3
    return torch.nn.functional.pad(x.bfloat16(), (0, 4)).to(device)


def truths(model, x):
    """What its first two blocks make of ``x``, in float32."""
    batch, height, width, _ = x.shape
    for shift, block in zip((0, 4), model.layers[0].residual_group.blocks, strict=True):
        layout = window_layout(batch, height, width, 8, shift, x.device)
        made = block(x[..., :60].float().reshape(-1, 60).index_select(0, layout.from_image), layout)
        yield made.index_select(0, layout.to_image).view(batch, height, width, 60)


def error(found, truth, x):
    """Root mean square, over that of what the block adds."""
    return float((found[..., :60] - truth).square().mean().sqrt() / (truth - x[..., :60]).square().mean().sqrt())


@interpreted
@pytest.mark.parametrize(
    ("size", "launches"),
    [
        ((1, 40, 48), [30, 30, 20, 20]),
        ((2, 32, 32), [16] * 4),  # of a shifted grid there are 9, too few
        ((1, 80, 24), [30, 30]),  # of a shifted grid there are enough, 18, but in two columns
        ((1, 8, 40), []),
    ],
)
def test_blocks_come_out_as_the_network_has_them(walks, size, launches):
    model, x = network(**LIGHT), features(*size)
    for block, truth in zip(TritonSwinIR(model, torch.bfloat16, PERSISTENT).groups[0][0], truths(model, x), strict=True):
        out = torch.full_like(x, 9.0)
        block.attend(x, out, PERSISTENT, whole=True)
        assert error(out, truth, x) < 0.02
        assert not out[..., 60:].any()
        place = x.clone()
        block.attend(place, place, PERSISTENT, whole=True)
        assert torch.equal(place, out)
    assert walks == launches


@interpreted
@pytest.mark.parametrize(("major", "hip"), [(8, None), (10, None), (9, "6.4")])
def test_other_gpus_than_hoppers_go_by_the_direct_kernel(walks, monkeypatch, major, hip):
    gpu = SimpleNamespace(major=major, multi_processor_count=2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: gpu)
    monkeypatch.setattr(torch.version, "hip", hip)
    x = features(1, 40, 48)
    out = torch.empty_like(x)
    TritonSwinIR(network(**LIGHT), torch.bfloat16, PERSISTENT).groups[0][0][0].attend(x, out, PERSISTENT, whole=True)
    assert walks == []


def shifted(block, offset):
    """``block`` with its scores higher by ``offset``, a power of 2, which a softmax does not see."""
    first = torch.arange(0, 60, 10)  # of each head's queries, and its keys; what those channels had goes
    for part, sign in ((0, 1.0), (60, math.copysign(1.0, offset))):
        block.attn.qkv.weight.data[part + first] = 0.0
        block.attn.qkv.bias.data[part + first] = sign * math.sqrt(abs(offset) * math.log(2) * math.sqrt(10))


@interpreted
@pytest.mark.parametrize(("offset", "holds"), [(100.0, True), (-90.0, True), (160.0, False), (-125.0, False), (-500.0, False)])
def test_scores_beyond_what_float32_holds_come_out_as_no_number(walks, offset, holds):
    model, x = network(**LIGHT), features(1, 40, 48)
    block = model.layers[0].residual_group.blocks[0]
    shifted(block, offset)
    block.attn.relative_position_bias_table.data -= 2 * offset  # which a softmax does not see either
    out = torch.empty_like(x)
    TritonSwinIR(model, torch.bfloat16, PERSISTENT).groups[0][0][0].attend(x, out, PERSISTENT, whole=True)
    assert walks
    if holds:
        assert error(out, next(truths(model, x)), x) < 0.02
    else:
        assert not out[..., :60].isfinite().any()


@interpreted
def test_a_block_whose_position_biases_lie_too_far_apart_goes_by_the_direct_kernel(walks):
    model, x = network(**LIGHT), features(1, 40, 48)
    model.layers[0].residual_group.blocks[0].attn.relative_position_bias_table.data[7] -= 80.0
    out = torch.empty_like(x)
    TritonSwinIR(model, torch.bfloat16, PERSISTENT).groups[0][0][0].attend(x, out, PERSISTENT, whole=True)
    assert walks == []
    assert error(out, next(truths(model, x)), x) < 0.02


def test_the_picture_that_a_choice_is_checked_on_has_windows_enough_for_a_hopper_gpu():
    rows, cols = (size // 8 - 1 for size in CHECKED_SIZE)
    assert can_walk(rows, cols, 132)


@given(st.integers(1, 1 << 12), st.integers(1, 1 << 12), st.data())
def test_the_row_of_a_window_is_found_without_a_division(rows, cols, data):
    if can_walk(rows, cols, 0):
        magic = -(-(2**32) // cols)
        assert magic < 2**31  # a kernel takes it for a signed one
        for window in (data.draw(st.integers(0, rows * cols - 1)), data.draw(st.integers(1, rows)) * cols - 1):
            assert window * magic >> 32 == window // cols


@pytest.mark.gpu
@pytest.mark.parametrize("size", [(1, 16, 16), (2, 264, 296), (1, 544, 960)])
def test_on_a_gpu_blocks_are_those_of_the_direct_kernel(size):
    if torch.cuda.get_device_capability()[0] != 9:
        pytest.skip("the kernel is for Hopper GPUs")
    model, x = network(**LIGHT).cuda(), features(*size, device="cuda")
    for block, truth in zip(TritonSwinIR(model, torch.bfloat16, PERSISTENT).groups[0][0], truths(model, x), strict=True):
        out, direct = torch.full_like(x, 9.0), torch.full_like(x, 9.0)
        block.attend(x, out, PERSISTENT, whole=True)
        block.attend(x, direct, DIRECT, whole=True)
        assert error(out, truth, x) < 0.02
        assert error(out, direct[..., :60].float(), x) < 0.008  # which rounds the weights of the softmax once, not three times
        assert not out[..., 60:].any()
        place = x.clone()
        block.attend(place, place, PERSISTENT, whole=True)
        assert torch.equal(place, out)
