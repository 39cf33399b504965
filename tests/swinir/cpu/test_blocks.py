"""The compiled blocks compute what the network computes, for every shape, and are done without where they cannot be had."""

from __future__ import annotations

import copy
import ctypes
import itertools
import logging
import subprocess

import numpy as np
import pytest
import torch
from compilers import compiler, lesser, needs_bfloat16, needs_compiler, needs_kernel
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import GOLDENS, damaged, from_golden, network

from swinir.cpu import blocks, compiled
from swinir.cpu.blocks import FusedSwinIR, fused
from swinir.cpu.compiled import block_kernel, build
from swinir.model import WindowAttention


@needs_kernel
@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
def test_the_compiled_blocks_match_every_golden(path):
    model, x, truth = from_golden(path)
    faster = fused(model)
    assert isinstance(faster, FusedSwinIR)
    with torch.inference_mode():
        assert np.abs(faster(x).numpy() - truth).max() < 1e-5


@needs_kernel
@settings(deadline=None, max_examples=30)
@given(
    batch=st.integers(1, 3), height=st.integers(1, 40), width=st.integers(1, 40), threads=st.integers(1, 3),
    heads=st.integers(1, 3), depth=st.integers(1, 3), window=st.sampled_from([4, 7, 8]), mlp_ratio=st.sampled_from([1, 2.5]),
)  # fmt: skip
def test_any_shape_on_any_number_of_threads(batch, height, width, threads, heads, depth, window, mlp_ratio):
    model = network(
        depths=(depth,), num_heads=(heads,), embed_dim=5 * heads, window_size=window, mlp_ratio=mlp_ratio, upscale=2
    )
    x = torch.rand(batch, 3, height, width)
    torch.set_num_threads(threads)
    with torch.inference_mode():
        torch.testing.assert_close(fused(model)(x), model(x), rtol=0, atol=1e-5)


@needs_bfloat16
@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
def test_bfloat16_is_near_every_golden(path):
    model, x, truth = from_golden(path)
    faster = fused(model, torch.bfloat16)
    assert isinstance(faster, FusedSwinIR)
    with torch.inference_mode():
        error = faster(x).numpy() - truth
    assert 1e-12 < np.mean(error**2) < 1e-5  # 50 dB at least, and not float32


@needs_bfloat16
@settings(deadline=None, max_examples=30, derandomize=True)
@given(
    batch=st.integers(1, 3), height=st.integers(1, 40), width=st.integers(1, 40), threads=st.integers(1, 3),
    heads=st.integers(1, 3), depth=st.integers(1, 3), window=st.sampled_from([4, 7, 8]), mlp_ratio=st.sampled_from([1, 2.4]),
    per_head=st.sampled_from([6, 10, 34]),
)  # fmt: skip
def test_any_shape_in_bfloat16_is_as_near_as_that_is_fine(
    batch, height, width, threads, heads, depth, window, mlp_ratio, per_head
):
    """Depths of products among them that are no whole tiles, and more than one for a head."""
    model = network(
        depths=(depth,), num_heads=(heads,), embed_dim=per_head * heads, window_size=window, mlp_ratio=mlp_ratio, upscale=2
    )
    x = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))
    torch.set_num_threads(threads)
    with torch.inference_mode():
        truth = model(x)
        faster = fused(model, torch.bfloat16)
        by_pytorch = copy.deepcopy(model).set_body_dtype(torch.bfloat16)
        assert isinstance(faster, FusedSwinIR)
        error, theirs = ((other(x) - truth).square().mean().sqrt() for other in (faster, by_pytorch))
    assert error < 1.1 * theirs + 1e-6


def test_heads_of_odd_width_go_without_the_kernel_in_bfloat16():
    assert fused(model := network(embed_dim=30, num_heads=(6, 6)), torch.bfloat16) is model


@needs_kernel
def test_each_picture_of_a_batch_is_as_if_alone():
    faster = fused(network())
    x = torch.rand(3, 3, 24, 32)
    with torch.inference_mode():
        torch.testing.assert_close(faster(x), torch.cat([faster(one[None]) for one in x]), rtol=0, atol=1e-5)


@needs_kernel
@pytest.mark.parametrize("without", lesser(), ids=lambda flags: flags[-1])
def test_what_a_lesser_processor_would_run(without):
    library = ctypes.CDLL(str(build(compiler(), [*compiled.FLAGS, *without])))
    dtypes = [dtype for dtype, entry_point in blocks.ENTRY_POINTS.items() if hasattr(library, entry_point)]
    assert torch.float32 in dtypes
    torch.set_num_threads(1)  # one window after the other, in the same memory
    for dtype, window in itertools.product(dtypes, (7, 8)):
        model = network(window_size=window, embed_dim=42, num_heads=(3, 3))
        faster = FusedSwinIR(model, library, dtype)
        x = torch.rand(2, 3, 37, 50)
        with torch.inference_mode():
            clean, after_damage = faster(x), faster(damaged(x))[1]
            assert (clean - model(x)).abs().max() < (1e-5 if dtype == torch.float32 else 2e-2)
        assert torch.equal(after_damage, clean[1])


@needs_kernel
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=needs_bfloat16)], ids=str)
@pytest.mark.parametrize("offset", [300.0, -300.0])
def test_scores_beyond_the_exponents_of_floats_are_weighed_as_others(offset, dtype):
    """A softmax is the same whatever is added to all scores, but e^300 is no float, and e^-300 is none but 0."""
    model = network()
    faster = fused(model, dtype)
    with torch.inference_mode():
        for block in model.modules():
            if isinstance(block, WindowAttention):
                block.relative_position_bias_table += offset
        moved = fused(model, dtype)
        assert isinstance(moved, FusedSwinIR)
        x = torch.rand(1, 3, 24, 24)
        torch.testing.assert_close(moved(x), faster(x), rtol=0, atol=1e-4 if dtype == torch.float32 else 2e-2)


@needs_kernel
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=needs_bfloat16)], ids=str)
@pytest.mark.parametrize("window", [7, 8])
def test_what_is_not_finite_stays_so_and_where_it_is(window, dtype):
    faster = fused(network(window_size=window), dtype)
    assert isinstance(faster, FusedSwinIR)
    x = torch.rand(2, 3, 4 * window, 4 * window)
    torch.set_num_threads(1)  # one window after the other, in the same memory
    with torch.inference_mode():
        clean, output = faster(x), faster(damaged(x))
    assert not output[0].isfinite().all()
    assert torch.equal(output[1], clean[1])


@pytest.mark.parametrize("compiler", ["", "no-such-compiler", "false"])
def test_without_a_compiler_the_network_is_itself(monkeypatch, compiler):
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setattr(blocks, "block_kernel", block_kernel.__wrapped__)
    model = network()
    assert fused(model) is model


@needs_kernel
def test_a_kernel_that_is_wrong_is_not_used(monkeypatch, caplog):
    model, packed = network(), blocks.packed
    monkeypatch.setattr(blocks, "packed", lambda *args: [tensor * 2 for tensor in packed(*args)])
    with caplog.at_level(logging.WARNING):
        assert fused(model) is model
    assert "going on without them" in caplog.text


@needs_kernel
def test_the_kernel_is_built_once_and_appears_whole(monkeypatch, tmp_path):
    monkeypatch.setenv("SWINIR_CACHE", str(tmp_path))
    quickly = (*compiled.FLAGS, "-O0")
    library = build(compiler(), quickly)
    before = library.stat()
    assert build(compiler(), quickly) == library
    assert (library.stat().st_ino, library.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [path.name for path in library.parent.iterdir()] == [library.name]


@needs_kernel
def test_a_cache_that_cannot_be_written_is_no_error(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SWINIR_CACHE", str(tmp_path / "file"))
    assert block_kernel.__wrapped__() is None


@needs_compiler
def test_the_kernel_compiles_without_a_warning(tmp_path):
    strict = ["-Wall", "-Wextra", "-Werror", "-o", str(tmp_path / "blocks.so")]
    ended = subprocess.run([compiler(), *compiled.FLAGS, str(compiled.SOURCE), *strict], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
