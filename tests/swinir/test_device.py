"""Each device gets what suits it."""

from types import SimpleNamespace

import pytest
import torch

from swinir.device import DEVICE_PIXELS, choose_device, choose_precision, choose_tile, place_for
from swinir.tiling import overlap_for

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_said():
    with pytest.raises(ValueError, match="sees no CUDA device"):
        choose_device("cuda")
    assert choose_device("auto").type == "cpu"


AMX = {"amx_bf16": True, "avx512_bf16": True, "avx512_fp16": True}
AMD = {"avx512_bf16": True}


@pytest.mark.parametrize(
    ("processor", "width", "kernel", "expected"),
    [
        ({}, 180, "float32", "fp32"),
        (AMX, 180, "both", "bf16"),
        (AMX, 60, "both", "bf16"),
        (AMX, 60, "float32", "fp32"),
        (AMX, 60, "none", "bf16"),
        (AMD, 180, "both", "bf16"),
        (AMD, 60, "both", "bf16"),
        (AMD, 60, "float32", "fp32"),  # a compiler that knows no AVX-512 BF16
        (AMD, 60, "none", "bf16"),
        (AMD, 0, "none", "bf16"),  # training
        ({"avx512_bf16": True, "avx512_fp16": True}, 180, "both", "fp32"),  # Intel without AMX
    ],
)
def test_bf16_on_a_cpu_only_where_it_is_faster(monkeypatch, processor, width, kernel, expected):
    monkeypatch.setattr("swinir.device.capabilities", lambda: processor)
    monkeypatch.setattr("swinir.device.block_kernel", lambda: None if kernel == "none" else kernel)
    monkeypatch.setattr("swinir.device.multiplies_bfloat16", lambda: kernel == "both")
    assert choose_precision("auto", torch.device("cpu"), width) == expected
    assert choose_precision("bf16", torch.device("cpu"), width) == "bf16"


def test_the_smallest_tile_shares_a_window_with_the_next():
    for window in (1, 7, 8, 12, 16, 24, 32):
        assert overlap_for(choose_tile(1, CPU, window, 16), window, 16) >= window


def test_an_unknown_device_is_said():
    with pytest.raises(ValueError, match="unknown device 'gpu0'"):
        choose_device("gpu0")


@pytest.mark.parametrize(("memory_gib", "tile"), [(8, 512), (16, 1024), (40, 1024), (80, 2048), (140, 2048)])
def test_tiles_are_as_large_as_memory_allows(monkeypatch, memory_gib, tile):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    properties = SimpleNamespace(total_memory=int(memory_gib * 0.97 * 2**30))  # the driver keeps some
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert choose_tile(None, CUDA, 8, 32) == tile
    assert choose_tile(200, CUDA, 7, 32) == 196
    assert choose_tile(None, CPU, 7, 16) == 252
    assert choose_tile(None, CPU, 8, 32) == 384


@pytest.mark.parametrize(("memory_gib", "most"), [(80, DEVICE_PIXELS), (8, 32 << 20)])
def test_large_results_stay_with_the_host(monkeypatch, memory_gib, most):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=memory_gib << 30))
    assert place_for(most, CUDA) == CUDA
    assert place_for(most + 1, CUDA) == CPU
