"""The Triton kernels compute what the network computes, as Triton's interpreter sees them; a GPU uses them if they win."""

from __future__ import annotations

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


def test_where_the_kernels_fail_or_lose_the_network_stays(monkeypatch):
    model = network()
    rounded = network().set_body_dtype(torch.bfloat16)
    times = iter([1.0, 2.0, 0.5, 2.0])  # of PyTorch's way, then of each way to launch the kernels
    monkeypatch.setattr(triton_blocks, "seconds", lambda network, x: next(times))
    monkeypatch.setattr(triton_blocks, "TRIAL_PX", 16)
    monkeypatch.setattr(triton_blocks, "TritonSwinIR", lambda network, *launch: Same(launch))

    class Same:
        def __init__(self, launch):
            self.launch = launch

        def __call__(self, x):
            return rounded(x)

    assert by_triton(model, rounded).launch == (torch.bfloat16, triton_blocks.WARPS[1])
    times = iter([1.0] + 3 * [2.0])
    assert by_triton(model, rounded) is rounded
    times = iter([1.0])
    monkeypatch.setattr(Same, "__call__", lambda self, x: rounded(x) + 1)
    assert by_triton(model, rounded) is rounded

    def fail(*args):
        raise RuntimeError("out of resources")

    times = iter([1.0])
    monkeypatch.setattr(triton_blocks, "TritonSwinIR", fail)
    assert by_triton(model, rounded) is rounded


COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from swinir.triton_kernels import attention_kernel, mlp_kernel

types = {"x_TC": "*bf16", "height": "i32", "width": "i32", "shift": "i32", "num_tokens": "i32"}
types |= dict.fromkeys(["qkv_K3CD", "proj_KDC", "fc1_CH", "fc2_HC"], "*bf16")
values = {"DIM": 180, "HEADS": 6, "WINDOW": 8, "EPS": 1e-5, "C_PAD": 256, "D_PAD": 32, "L_PAD": 64, "PRECISION": "tf32"}
values |= {"H_PAD": 384, "CHUNK": 64, "BLOCK": 64}
for kernel in (attention_kernel, mlp_kernel):
    names = kernel.arg_names
    signature = {name: "constexpr" if name in values else types.get(name, "*fp32") for name in names}
    constants = {(names.index(name),): values[name] for name in names if name in values}
    made = compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", 90, 32), options={"num_warps": 8})
    assert "wgmma" in made.asm["ptx"]  # the matrix units of Hopper
    assert made.asm["cubin"]
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
        for num_warps in triton_blocks.WARPS:
            found = TritonSwinIR(model, torch.bfloat16, num_warps)(x)
            errors = [float((each - truth).square().mean().sqrt()) for each in (found, rounded)]
            assert errors[0] < 1.2 * errors[1]
