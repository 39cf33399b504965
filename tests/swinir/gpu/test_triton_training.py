"""What a GPU trains with gives the network's output and gradients, as Triton's interpreter sees it and on a GPU."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tiny import SHORT_RUN, network

from swinir.gpu import training
from swinir.gpu.training import RasterSwinIR, trainable
from swinir.train.loop import Trainer

triton = pytest.importorskip("triton", reason="Triton is for Linux")
interpreted = pytest.mark.skipif(not triton.knobs.runtime.interpret, reason="there is a GPU to compile for")


def both_ways(model, x, dtype=torch.float32):
    """The output and all gradients, of the network and by the kernels."""
    weights = torch.rand(1, generator=torch.Generator().manual_seed(0)).item()
    found = []
    for each in (model, RasterSwinIR(model)):
        with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
            out = each(x)
        loss = (out * (weights + torch.linspace(-1, 1, out.numel(), device=out.device).view(out.shape))).sum()
        found.append([out.detach(), *torch.autograd.grad(loss, list(model.parameters()))])
    return found


SHAPES = pytest.mark.parametrize(
    ("size", "changes"),
    [
        ((3, 8, 8), {}),  # one window, which is interior, right, bottom and corner
        ((2, 16, 16), {"num_heads": (3,), "depths": (2,)}),
        ((1, 21, 13), {"window_size": 7, "embed_dim": 34}),
        ((2, 5, 3), {"window_size": 4}),
        ((1, 8, 16), {"embed_dim": 60, "num_heads": (6, 6)}),
    ],
)


@interpreted
@SHAPES
def test_output_and_gradients_are_the_networks(size, changes):
    model, x = network(**changes).train().requires_grad_(True), torch.rand(size[0], 3, *size[1:])
    for truth, ours in zip(*both_ways(model, x), strict=True):
        assert float((ours - truth).norm()) <= 1e-5 * float(truth.norm())


@interpreted
def test_more_windows_than_programs(monkeypatch):
    monkeypatch.setattr(training, "PROGRAMS", 2)
    model, x = network(depths=(2,), num_heads=(2,)).train().requires_grad_(True), torch.rand(1, 3, 16, 24)
    for truth, ours in zip(*both_ways(model, x), strict=True):
        assert float((ours - truth).norm()) <= 1e-5 * float(truth.norm())


@interpreted
def test_it_takes_the_networks_steps(patches, tmp_path):
    plain, ours = (Trainer(SHORT_RUN, patches, tmp_path / str(way), torch.device("cpu"), way=way) for way in (None, trainable))
    assert isinstance(ours._network, RasterSwinIR)
    losses = [[trainer.train_step() for _ in range(2)] for trainer in (plain, ours)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)


@interpreted
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # PyTorch's compiler warns of itself
def test_compiled_it_takes_the_same_steps(patches, tmp_path):
    plain, ours = (
        Trainer(dataclasses.replace(SHORT_RUN, compile=flag), patches, tmp_path / str(flag), torch.device("cpu"), way=trainable)
        for flag in (False, True)
    )
    assert ours._network.run_block is not plain._network.run_block
    losses = [[trainer.train_step() for _ in range(2)] for trainer in (plain, ours)]
    assert losses[1] == pytest.approx(losses[0], abs=0.01)


@interpreted
def test_kernels_that_fail_or_are_wrong_are_done_without(monkeypatch, caplog):
    model = network().train()
    right = training.run_block
    monkeypatch.setattr(training, "run_block", lambda block, x, window, shift: right(block, x, window, 0))
    assert trainable(model) is model
    assert "they differ" in caplog.text

    def broken(*given):
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(training, "run_block", broken)
    assert trainable(model) is model
    assert "without its Triton kernels: Failed to find C compiler" in caplog.text


def test_windows_that_are_too_large_are_left_to_pytorch():
    model = network(window_size=10)
    assert trainable(model) is model


@pytest.mark.gpu
@SHAPES
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-3), (torch.bfloat16, 0.1)])
def test_on_a_gpu_output_and_gradients_are_the_networks(size, changes, dtype, most):
    model = network(**changes).cuda().train().requires_grad_(True)
    x = torch.rand(size[0], 3, *size[1:], device="cuda")
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        (truth, _), (_, ours) = both_ways(model, x), both_ways(model, x, dtype)
    for known, found in zip(truth, ours, strict=True):
        assert float((found - known).norm()) <= most * float(known.norm())


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")  # what PyTorch warns of within itself as it imports its compiler and compiles
@pytest.mark.parametrize(("changes", "most"), [({}, 0.05), ({"compile": True, "precision": "bf16", "optimizer": "muon"}, 0.5)])
def test_on_a_gpu_recorded_steps_are_those_of_a_cpu(patches, tmp_path, changes, most):
    config = dataclasses.replace(SHORT_RUN, steps=12, plain_weight=0.5, **changes)
    slow = Trainer(dataclasses.replace(config, compile=False), patches, tmp_path / "cpu", torch.device("cpu"))
    fast = Trainer(config, patches, tmp_path / "gpu", torch.device("cuda"), way=trainable)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        losses = [[trainer.train_step() for _ in range(8)] for trainer in (slow, fast)]
        recorded = fast._compute._graph, fast._update._graph
        assert None not in recorded
        for trainer, each in zip((slow, fast), losses, strict=True):
            each += [trainer.train_step() for _ in range(4)]
    assert (fast._compute._graph, fast._update._graph) == recorded  # once, and not anew for each step
    assert losses[1] == pytest.approx(losses[0], abs=most)
    for one, other in (("gpu", "cpu"), ("cpu", "cuda")):  # either goes on where the other stopped
        (slow if one == "cpu" else fast).save()
        way = trainable if other == "cuda" else None
        resumed = Trainer(dataclasses.replace(config, compile=False), patches, tmp_path / one, torch.device(other), way=way)
        assert resumed.step == 12
        assert resumed.train_step() == pytest.approx((slow if one == "cpu" else fast).train_step(), abs=most)
