"""What suits a device: which it is, its tiles, its precision, what it holds; and whether its memory ran out."""

from __future__ import annotations

import math

import torch

from swinir.cpu.blocks import multiplies_bfloat16
from swinir.cpu.compiled import block_kernel, capabilities
from swinir.tiling import round_up

# The length of a tile on a CPU, by the overlap: larger ones cost memory. Tiles of 256 cost a shallow network 4 % more time than
# one tile for all does, a deep one 17 %.
CPU_TILES = {0: 256, 32: 384}
# The length of a tile by the memory that a GPU has: a pass of classical-x4 takes 8 KiB an input pixel.
GPU_TILES = {0: 512, 15 << 30: 1024, 70 << 30: 2048}
NARROW = 64  # channels
SMALLEST_TILE = 32
DEVICE_PIXELS = 64 << 20  # larger results stay in host memory, and only their tiles go to the device
BYTES_PER_PIXEL = 256  # of a device's memory, that it must have for results to be held there
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")


def place_for(num_pixels: int, device: torch.device) -> torch.device:
    """Where to hold pictures whose results have that many pixels: ``device``, or the host's memory."""
    return device if num_pixels <= min(DEVICE_PIXELS, memory_bytes(device) // BYTES_PER_PIXEL) else torch.device("cpu")


def memory_bytes(device: torch.device) -> float:
    """Of a CUDA device; infinite for others, and for one that is not there, which another machine may have."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return math.inf
    return float(torch.cuda.get_device_properties(device).total_memory)


def choose_device(name: str) -> torch.device:
    """ "auto" is CUDA where there is one. Raises ValueError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"unknown device {name!r}; use auto, cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device {name!r} is none that this program computes on; use auto, cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r} was asked for, but PyTorch {torch.__version__} sees no CUDA device; use cpu or auto")
    return device


def choose_tile(tile: int | None, device: torch.device, window: int, overlap: int) -> int:
    """The length of a tile in input pixels: what was asked for or suits the device, in whole windows."""
    lengths, has = (CPU_TILES, overlap) if device.type == "cpu" else (GPU_TILES, memory_bytes(device))
    suits = max(length for least, length in lengths.items() if has >= least)
    return max(smallest_tile(window), (tile or suits) // window * window)


def smallest_tile(window: int) -> int:
    """In whole windows, and long enough for one to be shared with the next tile: see ``overlap_for``."""
    return max(round_up(SMALLEST_TILE, window), 4 * window)


def choose_precision(name: str, device: torch.device, width: int = 0) -> str:
    """ "auto" is bf16 where that is faster for a network of ``width`` channels (0 for training), else fp32."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type != "cpu":
        return "fp32"
    # PyTorch in bfloat16 is behind the compiled blocks in float32 where most of the time is not matrix products.
    only_fp32 = 0 < width <= NARROW and block_kernel() is not None and not multiplies_bfloat16()
    # Measured: with AMX 1.4 (narrow) to 2.6 times as fast, on AMD 1.4 to 1.6 times. Intel's without AMX, known by AVX-512 FP16
    # beside it, does no more multiplications a cycle than in fp32, and PyTorch is at 0.7 of that.
    has = capabilities().get
    faster = not only_fp32 and bool(has("amx_bf16") or (has("avx512_bf16") and not has("avx512_fp16")))
    return "bf16" if faster else "fp32"


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device or the machine had no memory left; CUDA has a class for it, cuBLAS and the CPU only words."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)
