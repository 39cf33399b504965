"""A network measured: each way to compute it in turn, with its error, its multiply-adds and the share of the peak.

Needs no more than PyTorch, NumPy, Pillow and safetensors, as a machine with a GPU may have; there

SWINIR_CACHE=/tmp/swinir python -m jobs.measure classical-x4 960x540 reference

prints what `swinir bench model --json` prints.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from jobs.baseline import ReferenceSwinIR, published_network
from pipeline.errors import ConfigError
from swinir import Upscaler
from swinir.cpu.compiled import capabilities
from swinir.device import choose_device
from swinir.gpu.graphs import SEEN
from swinir.model import SwinIR
from swinir.presets import preset
from swinir.train.synthetic import synthetic_picture
from swinir.weights import bundled_file, load_model

Way = tuple[Callable[[Tensor], Tensor], torch.dtype]

CORNER = 128  # pixels, of the picture


def parse_size(text: str) -> tuple[int, int]:
    """(width, height). Raises ConfigError for anything but two whole numbers with an x."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) * int(height)):
        raise ConfigError(f"--size is WIDTHxHEIGHT, such as 240x160, got {text!r}")
    return int(width), int(height)


def measure(
    name: str, size: tuple[int, int], device: str, baselines: list[str], checkout: Path | None, rounds: int
) -> dict[str, Any]:
    """Every way in turn, round after round, on the same picture, once each is warm; on a GPU baselines of a corner of it."""
    width, height = size
    network, ways = ways_to_compute(name, size, device, baselines, checkout)
    target = network.mean.device
    x = picture(network.config.in_chans, width, height).to(target)
    with torch.inference_mode():
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            truth = network(x).double()
        peaks_gib: dict[str, float | None] = {}
        for way, (run, _) in ways.items():
            if target.type == "cuda" and way in baselines:
                run(x[..., :CORNER, :CORNER])  # a whole pass of the reference can take a minute
            else:
                peaks_gib[way] = grown(lambda: [run(x) for _ in range(SEEN + 2 if target.type == "cuda" else 1)], target)  # noqa: B023
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        outputs: dict[str, Tensor] = {}

        def once(way: str) -> None:
            torch.backends.cudnn.allow_tf32 = True  # PyTorch's default, which Upscaler changes
            started = time.perf_counter()
            outputs[way] = ways[way][0](x)
            synchronize(target)
            seconds[way].append(time.perf_counter() - started)

        for _ in range(rounds):
            for way in ways:
                if way in peaks_gib:
                    once(way)
                else:
                    peaks_gib[way] = grown(partial(once, way), target)
    peaks = {dtype: peak_tflops(dtype, target) for dtype in {dtype for _, dtype in ways.values()}}
    macs = multiply_adds(network, width, height)
    medians = {way: statistics.median(each) for way, each in seconds.items()}
    rows = []
    for way, (_, dtype) in ways.items():
        error = (outputs[way].to(target).double() - truth).abs()
        tflops = 2 * macs / medians[way] / 1e12
        rows.append({
            "way": way, "ms": medians[way] * 1e3, "times": next(iter(medians.values())) / medians[way],
            "max_error": float(error.max()), "psnr_db": -10 * float(error.square().mean().clamp_min(1e-30).log10()),
            "tflops": tflops, "of_peak": tflops / peaks[dtype], "peak_gib": peaks_gib[way],
        })  # fmt: skip
    return {
        "model": name, "size": f"{width}x{height}", "device": device_name(target), "threads": torch.get_num_threads(),
        "torch": torch.__version__, "gmacs": macs / 1e9,
        "peak_tflops": {str(dtype).removeprefix("torch."): peak for dtype, peak in peaks.items()}, "rows": rows,
    }  # fmt: skip


def grown(work: Callable[[], object], device: torch.device) -> float | None:
    """Do it; the GiB that this took on a CUDA device, but for what is there already, as other ways and weights are."""
    if device.type != "cuda":
        work()
        return None
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved(device)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    synchronize(device)
    return (torch.cuda.max_memory_reserved(device) - before) / 2**30


def ways_to_compute(
    name: str, size: tuple[int, int], device: str, baselines: list[str], checkout: Path | None
) -> tuple[SwinIR, dict[str, Way]]:
    """The float32 network that errors are measured against, and the baselines followed by what this package does.

    That is once in float32 and, where "auto" chooses another precision, once in that.
    """
    try:
        chosen = preset(name)
        if chosen.weightless:
            raise ConfigError(f"{name} is no network; name one of `swinir models` that is")
        target = choose_device(device)
        weights = None if chosen.config is None or bundled_file(chosen).is_file() else "random"
        network: SwinIR = load_model(name, weights).to(target)  # type: ignore[assignment]
    except ValueError as error:
        raise ConfigError(str(error)) from error
    ways: dict[str, Way] = {}
    for baseline in baselines:
        if baseline == "reference":
            other = ReferenceSwinIR(network) if checkout is None else published_network(checkout, network).to(target)
            ways[baseline] = (other, torch.float32)
        elif baseline == "plain":
            ways[baseline] = (network, torch.float32)
        elif target.type != "cpu":
            raise ConfigError("openvino is a baseline for the CPU only; leave it out of --against")
        else:
            ways |= {f"openvino {precision}": way for precision, way in openvino_ways(network, size).items()}
    for precision in ("fp32", "auto"):
        up = Upscaler(name, weights=weights, device=device, precision=precision)
        label = f"swinir {up.precision}{' triton' if up.engine == 'triton' else ''}"
        ways[label] = (up.upscale, torch.bfloat16 if up.precision == "bf16" else torch.float32)
    return network, ways


def openvino_ways(network: nn.Module, size: tuple[int, int]) -> dict[str, Way]:
    """The same graph by OpenVINO, in both precisions. Raises ConfigError where it is not installed."""
    try:
        import openvino  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError as error:
        raise ConfigError("openvino is not installed; pip install 'swinir-pipeline[openvino]', or leave it out") from error
    width, height = size
    example = picture(network.config.in_chans, width, height)  # type: ignore[union-attr, arg-type]
    graph = openvino.convert_model(network, example_input=example, input=list(example.shape))

    def way(precision: str) -> Callable[[Tensor], Tensor]:
        options = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        compiled = openvino.compile_model(graph, "CPU", options)
        return lambda x: torch.from_numpy(compiled(x.numpy())[0].copy())

    return {"fp32": (way("f32"), torch.float32), "bf16": (way("bf16"), torch.bfloat16)}


def picture(chans: int, width: int, height: int) -> Tensor:
    """(1, C, H, W) float32 in [0, 1]: a drawn picture, as smooth and as edged as pictures are."""
    drawn = synthetic_picture(0, np.random.default_rng(0))
    rows, columns = (np.arange(size) % limit for size, limit in zip((height, width), drawn.shape[:2], strict=True))
    return torch.from_numpy(drawn[rows][:, columns][..., :chans].copy()).permute(2, 0, 1)[None].float() / 255


def multiply_adds(network: SwinIR, width: int, height: int) -> int:
    """Of matrix products and convolutions, counted by PyTorch on two by two windows and scaled to the whole."""
    window = network.config.window_size
    side = 2 * window
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        ReferenceSwinIR(network)(torch.zeros(1, network.config.in_chans, side, side, device=network.mean.device))
    windows = -(-width // window) * -(-height // window)
    return int(counter.get_total_flops()) // 2 * windows // 4


def peak_tflops(dtype: torch.dtype, device: torch.device) -> float:
    """The best of several products of square matrices."""
    length = 8192 if device.type == "cuda" else 1536
    a, b = (torch.randn(length, length, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(8):
        synchronize(device)
        started = time.perf_counter()
        torch.mm(a, b)
        synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * length**3 / best / 1e12


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    has = capabilities().get
    features = [name for name in ("amx_bf16", "avx512_bf16", "avx512_f", "avx2") if has(name)]
    return f"CPU ({features[0] if features else 'no vectors known'})"


if __name__ == "__main__":
    name, size, *baselines = sys.argv[1:]
    print(json.dumps(measure(name, parse_size(size), "auto", baselines, None, rounds=5)))
