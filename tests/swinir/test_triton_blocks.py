"""The Triton kernels compute what the network computes, as Triton's interpreter sees them; a GPU uses them if they win."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import from_golden, network

from swinir import triton_blocks
from swinir.triton_blocks import TritonSwinIR, by_triton

triton = pytest.importorskip("triton", reason="Triton is for Linux")
interpreter = pytest.importorskip("triton.runtime.interpreter")

GOLDEN = sorted((Path(__file__).resolve().parents[1] / "golden").glob("*.npz"))


interpreted = pytest.mark.skipif(not triton.knobs.runtime.interpret, reason="there is a GPU to compile for")


@pytest.fixture
def bfloat16_products(monkeypatch):
    """The interpreter (Triton 3.7 to 3.9) holds bfloat16 as uint16, and multiplies it as such."""
    dot = interpreter.InterpreterBuilder.create_dot

    def create_dot(self, a, b, *rest):
        wide = [
            interpreter.TensorHandle((x.data.astype(np.uint32) << 16).view(np.float32), triton.language.float32)
            if x.dtype == triton.language.bfloat16
            else x
            for x in (a, b)
        ]
        return dot(self, *wide, *rest)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", create_dot)


@interpreted
@pytest.mark.parametrize("path", [path for path in GOLDEN if "large" not in path.stem], ids=lambda path: path.stem)
def test_the_kernels_match_the_goldens(path):
    model, x, truth = from_golden(path)
    with torch.inference_mode():
        assert np.abs(TritonSwinIR(model, torch.float32)(x).numpy() - truth).max() < 1e-5


@interpreted
@pytest.mark.parametrize(
    ("size", "changes"),
    [
        ((8, 8), {}),  # one window, which is interior, right, bottom and corner
        ((9, 31), {"num_heads": (3, 3)}),
        ((24, 40), {"embed_dim": 20, "mlp_ratio": 2.5}),
        ((21, 13), {"window_size": 7, "embed_dim": 34}),
        ((5, 3), {"window_size": 4}),
    ],
)
def test_any_size_and_shape(size, changes):
    model, x = network(**changes), torch.rand(2, 3, *size)
    with torch.inference_mode():
        found = TritonSwinIR(model, torch.float32)(x)
        torch.testing.assert_close(found.double(), model.double()(x.double()), rtol=0, atol=1e-5)


@interpreted
def test_bfloat16_costs_what_it_does_in_pytorch(bfloat16_products):
    model, x = network(embed_dim=60, num_heads=(6, 6)), torch.rand(1, 3, 16, 24)
    with torch.inference_mode():
        found = TritonSwinIR(model, torch.bfloat16)(x)
        rounded = network(embed_dim=60, num_heads=(6, 6)).set_body_dtype(torch.bfloat16)(x)
        truth = model.double()(x.double())
    errors = [float((each - truth).square().mean().sqrt()) for each in (found, rounded)]
    assert 0 < errors[0] < 2.5 * errors[1]  # the interpreter cuts off what a GPU rounds to nearest


def test_the_network_itself_is_left_as_it_was():
    model = network()
    TritonSwinIR(model, torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


class Trial:
    """A network in float32, one with its body rounded, and a cache in which nothing was found yet."""

    def __init__(self, folder, monkeypatch):
        self.network, self.rounded, self.folder = network(), network().set_body_dtype(torch.bfloat16), folder
        self.times, self.monkeypatch = [], monkeypatch

    def run(self, ratio, stand_in=None):
        """What is chosen where the kernels take ``ratio`` of PyTorch's time; ``stand_in`` in place of them."""

        def seconds_ratio(*args):
            self.times.append(ratio)
            return ratio

        self.monkeypatch.setattr(triton_blocks, "seconds_ratio", seconds_ratio)
        self.monkeypatch.setattr(
            triton_blocks, "TritonSwinIR", lambda *args: stand_in or network().set_body_dtype(torch.bfloat16)
        )
        return by_triton(self.network, self.rounded, 16, 1, self.folder)


@pytest.fixture
def trial(tmp_path, monkeypatch):
    return Trial(tmp_path, monkeypatch)


def test_the_kernels_are_used_if_they_win_and_the_choice_is_kept(trial):
    assert trial.run(0.5) is not trial.rounded
    assert trial.run(2.0) is not trial.rounded
    assert trial.times == [0.5]
    assert [path.read_text() for path in trial.folder.rglob("*.json")] == ["true"]


def test_kernels_that_win_by_nothing_are_left_out(trial):
    assert trial.run(0.97) is trial.rounded
    assert trial.run(0.5) is trial.rounded  # as it was found the first time


def test_a_cache_that_cannot_be_written_is_no_error(trial):
    trial.folder = trial.folder / "file"
    trial.folder.write_text("")
    assert trial.run(0.5) is not trial.rounded


def without_position_bias():
    model = network()
    for name, parameter in model.named_parameters():
        if name.endswith("relative_position_bias_table"):
            parameter.zero_()
    return model.set_body_dtype(torch.bfloat16)


@pytest.mark.parametrize("wrong", [lambda x: torch.full((1, 3, 144, 208), torch.nan), without_position_bias()])
def test_kernels_that_are_wrong_are_left_out(trial, caplog, wrong):
    with caplog.at_level(logging.WARNING):
        assert trial.run(0.5, wrong) is trial.rounded
    assert "going on without them" in caplog.text


def test_kernels_that_fail_are_left_out(trial, caplog):
    def fail(x):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with caplog.at_level(logging.WARNING):
        assert trial.run(0.5, fail) is trial.rounded
    assert "without its Triton kernels: CUDA out of memory" in caplog.text


def test_a_picture_of_more_places_than_the_kernels_count_goes_without_them(monkeypatch):
    model, x = network(), torch.rand(1, 3, 16, 16)
    monkeypatch.setattr(triton_blocks, "MAX_PLACES", 16 * 16 * 12)
    monkeypatch.setattr(triton_blocks.PackedBlock, "run", None)
    with torch.inference_mode():
        torch.testing.assert_close(TritonSwinIR(model, torch.float32)(x), model(x))


COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from swinir.triton_blocks import LAUNCH
from swinir.triton_kernels import attention_kernel, mlp_kernel

types = {"x_TC": "*bf16", "height": "i32", "width": "i32", "shift": "i32", "num_tokens": "i32"}
types |= dict.fromkeys(["qkv_K3CD", "proj_KDC", "fc1_CH", "fc2_HC"], "*bf16")
values = {"DIM": 180, "HEADS": 6, "WINDOW": 8, "EPS": 1e-5, "C_PAD": 256, "D_PAD": 32, "L_PAD": 64, "PRECISION": "tf32"}
values |= {"H_PAD": 384, "CHUNK": 64, "BLOCK": 64}
for kernel in (attention_kernel, mlp_kernel):
    names = kernel.arg_names
    signature = {name: "constexpr" if name in values else types.get(name, "*fp32") for name in names}
    constants = {(names.index(name),): values[name] for name in names if name in values}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if signature[name].startswith("*")}
    source = ASTSource(kernel, signature, constants, aligned)  # as tensors of PyTorch's are
    made = compile(source, target=GPUTarget("cuda", 90, 32), options=LAUNCH)
    assert "wgmma" in made.asm["ptx"]  # the matrix units of Hopper
    assert made.asm["cubin"]
    assert made.metadata.shared <= 232448, made.metadata.shared  # bytes that a program may have there
"""


def test_the_kernels_compile_for_a_gpu_that_is_not_there(tmp_path):
    env = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", COMPILE], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("changes", [{"embed_dim": 60, "num_heads": (6, 6)}, {"embed_dim": 180, "num_heads": (6, 6)}])
def test_on_a_gpu_the_compiled_kernels_are_as_exact_as_pytorch(changes):
    model = network(**changes).cuda()
    x = torch.rand(2, 3, 75, 130, device="cuda")
    with torch.inference_mode():
        rounded = network(**changes).set_body_dtype(torch.bfloat16).cuda()(x)
        truth = model.double()(x.double())
        model.float()
        found = TritonSwinIR(model, torch.bfloat16)(x)
    errors = [float((each - truth).square().mean().sqrt()) for each in (found, rounded)]
    assert errors[0] < 1.2 * errors[1]
