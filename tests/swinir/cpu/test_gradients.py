"""The compiled gradients are PyTorch's, for every shape, and are done without where they cannot be had."""

from __future__ import annotations

import ctypes
import itertools
import logging
from typing import Any

import pytest
import torch
from compilers import compiler, lesser, needs_bfloat16, needs_kernel
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import damaged, network

from swinir.cpu import blocks, compiled, gradients
from swinir.cpu.blocks import ENTRY_POINTS
from swinir.cpu.compiled import block_kernel, build
from swinir.cpu.gradients import TrainableSwinIR, trainable
from swinir.model import SwinIR
from swinir.train.start import start_as_pass_through


def to_train(**changes):
    return network(**changes).train().requires_grad_(True)


def slopes(model: SwinIR, size=(2, 3, 20, 30), dtype=torch.float32) -> dict[str, torch.Tensor]:
    """Gradients of a mean square, of all parameters by name and of the input."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(size, generator=generator).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        output = model(x)
    loss = (output - torch.rand(output.shape, generator=generator)).square().mean()
    names = ["input", *(name for name, _ in model.named_parameters())]
    return dict(zip(names, torch.autograd.grad(loss, [x, *model.parameters()]), strict=True))


def error(found: dict[str, torch.Tensor], truth: dict[str, torch.Tensor]) -> float:
    """The largest of all parameters' errors, as part of their gradient."""
    return max(float((found[name] - truth[name]).norm() / (truth[name].norm() + 1e-12)) for name in truth)


@needs_kernel
@settings(max_examples=15)
@given(
    batch=st.integers(1, 3), height=st.integers(1, 40), width=st.integers(1, 40), threads=st.integers(1, 3),
    heads=st.integers(1, 3), depth=st.integers(1, 3), window=st.sampled_from([4, 7, 8]), mlp_ratio=st.sampled_from([1, 2.4]),
    per_head=st.sampled_from([5, 6, 25]),
)  # fmt: skip
def test_gradients_of_any_shape_on_any_number_of_threads(
    batch, height, width, threads, heads, depth, window, mlp_ratio, per_head
):
    """Odd rows and columns of every product among them, and more channels than a strip has."""
    model = to_train(depths=(depth,), num_heads=(heads,), embed_dim=per_head * heads, window_size=window, mlp_ratio=mlp_ratio)
    torch.set_num_threads(threads)
    faster = trainable(model)
    assert isinstance(faster, TrainableSwinIR)
    size = (batch, 3, height, width)
    assert error(slopes(faster, size), slopes(model, size)) < 1e-4


@needs_bfloat16
@pytest.mark.parametrize(("heads", "per_head", "window"), [(6, 6, 8), (6, 10, 8), (6, 30, 8), (3, 8, 7), (1, 34, 8)])
def test_gradients_in_bfloat16_are_as_near_as_those_of_autocast(heads, per_head, window):
    model = to_train(embed_dim=heads * per_head, num_heads=(heads, heads), window_size=window, mlp_ratio=2.4)
    faster = trainable(model, torch.bfloat16)
    assert isinstance(faster, TrainableSwinIR)
    truth = slopes(model)
    assert 1e-5 < error(slopes(faster, dtype=torch.bfloat16), truth) < 1.5 * error(slopes(model, dtype=torch.bfloat16), truth)


@needs_kernel
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=needs_bfloat16)], ids=str)
def test_the_same_threads_give_the_same_bits(dtype):
    torch.set_num_threads(2)
    networks = [trainable(to_train(), dtype) for _ in range(2)]
    assert all(isinstance(each, TrainableSwinIR) for each in networks)
    first, second = map(slopes, networks)
    assert all(torch.equal(first[name], second[name]) for name in first)


@needs_kernel
@pytest.mark.parametrize("without", lesser(), ids=lambda flags: flags[-1])
def test_the_gradients_of_a_lesser_processor(without):
    library = ctypes.CDLL(str(build(compiler(), [*compiled.FLAGS, *without])))
    dtypes = [dtype for dtype, entry_point in ENTRY_POINTS.items() if hasattr(library, entry_point)]
    for dtype, window in itertools.product(dtypes, (7, 8)):
        model = to_train(window_size=window, embed_dim=42, num_heads=(3, 3))
        found = slopes(TrainableSwinIR(model, library, dtype), dtype=dtype)
        assert error(found, slopes(model)) < (1e-4 if dtype == torch.float32 else 5e-2)


@needs_kernel
def test_what_is_trained_is_the_network_itself():
    model = to_train()
    faster = trainable(model)
    assert isinstance(faster, TrainableSwinIR)
    x = torch.rand(1, 3, 16, 16)
    before = faster(x).detach()
    with torch.no_grad():
        for parameter in faster.parameters():
            parameter += 0.01
    assert not torch.equal(faster(x), before)
    torch.testing.assert_close(faster(x), model(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("missing", ["", "no-such-compiler"])
def test_without_a_compiler_training_is_pytorch_s(monkeypatch, missing):
    monkeypatch.setenv("CXX", missing)
    monkeypatch.setattr(blocks, "block_kernel", block_kernel.__wrapped__)
    model = to_train()
    assert trainable(model) is model


@needs_kernel
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=needs_bfloat16)], ids=str)
@pytest.mark.parametrize("lost", range(9))
def test_gradients_that_are_wrong_are_not_used(monkeypatch, caplog, lost, dtype):
    """Of any of a block's tensors, also where training begins, when the body's gradients are 0."""
    model, gradients_of = to_train(), gradients.gradients_of
    start_as_pass_through(model)

    def without_one(*args: Any) -> list[torch.Tensor]:
        return [gradient * (i != lost) for i, gradient in enumerate(gradients_of(*args))]

    monkeypatch.setattr(gradients, "gradients_of", without_one)
    with caplog.at_level(logging.WARNING):
        assert trainable(model, dtype) is model
    assert "going on without them" in caplog.text


@needs_kernel
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=needs_bfloat16)], ids=str)
def test_what_is_not_finite_stays_in_its_picture(dtype):
    faster = trainable(to_train(window_size=7), dtype)
    assert isinstance(faster, TrainableSwinIR)
    torch.set_num_threads(1)  # one window after the other, in the same memory
    x = torch.rand(2, 3, 28, 28)
    clean, after_damage = (
        torch.autograd.grad(faster(each).square().sum(), each)[0]
        for each in (x.requires_grad_(), damaged(x.detach()).requires_grad_())
    )
    assert not after_damage[0].isfinite().all()
    assert torch.equal(after_damage[1], clean[1])
