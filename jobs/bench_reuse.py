"""Measure what not computing repeated parts of a video brings, on drawn clips, and what looking for them costs.

swinir bench reuse
swinir bench reuse --model nearest-x2 --frames 24 --near 4
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from pipeline.errors import ConfigError

if TYPE_CHECKING:  # torch loads with the first use: the command line's help does without
    from torch import Tensor

    from swinir import Upscaler

Clip = list[np.ndarray[Any, np.dtype[np.uint8]]]


def reuse(
    model: Annotated[str, typer.Option(help="Any of `swinir models`.")] = "lightweight-x2",
    size: Annotated[str, typer.Option(help="Of a frame, WIDTHxHEIGHT in pixels.")] = "256x192",
    tile: Annotated[int, typer.Option(help="Length of a tile, in pixels.", min=16)] = 96,
    frames: Annotated[int, typer.Option(help="Of each clip.", min=2)] = 8,
    near: Annotated[float, typer.Option(help="Also --reuse near:T, with its error.", min=0)] = 2,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line instead of a table.")] = False,
) -> None:
    """--reuse off, exact and near on drawn clips of several kinds, frame by frame in turn."""
    from jobs.measure import parse_size
    from swinir import Upscaler

    try:
        up = Upscaler(model, device=device, tile=tile)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    rows: list[dict[str, Any]] = [
        {"clip": name, **compare(up, clip, near)} for name, clip in clips(parse_size(size), frames).items()
    ]
    if as_json:
        print(json.dumps({"model": model, "size": size, "tile": up.tile, "frames": frames, "near": near, "rows": rows}))
        return
    table = Table("clip", "tiles reused", "times as fast", "cost", "near: reused", "times", "PSNR dB", box=box.SIMPLE)
    for row in rows:
        table.add_row(
            row["clip"], f"{row['reused']:.0%}", f"{row['times']:.2f}", f"{row['cost']:.2%}", f"{row['near_reused']:.0%}",
            f"{row['near_times']:.2f}", f"{row['near_psnr_db']:.1f}",
        )  # fmt: skip
    Console().print(table)
    print(f"{model}, {frames} frames of {size} in tiles of {up.tile}; near:{near:g} against exact")


def compare(up: Upscaler, clip: Clip, near: float) -> dict[str, float]:
    """Seconds without and with a memory; equal outputs are made sure of. ``cost`` is the memory's own share of the time."""
    import torch

    from swinir.reuse import TileMemory

    exact, tolerant = TileMemory(), TileMemory(near)
    seconds = {"off": 0.0, "exact": 0.0, "near": 0.0}
    squared, overhead = 0.0, 0.0
    up(clip[0])
    for picture in clip:
        x = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
        outputs: dict[str, Tensor] = {}
        for name, memory in (("off", None), ("exact", exact), ("near", tolerant)):
            outputs[name], taken = timed(lambda x=x, memory=memory: up.upscale(x, memory))  # type: ignore[misc]
            seconds[name] += taken
        if not torch.equal(outputs["off"], outputs["exact"]):
            raise RuntimeError("exact reuse changed the output: please report this")
        squared += float((outputs["near"] - outputs["off"]).square().mean())
        overhead += cost_of_looking(x, up.tile)
    total = exact.num_reused + exact.num_computed
    return {
        "seconds_off": seconds["off"], "reused": exact.num_reused / total, "times": seconds["off"] / seconds["exact"],
        "cost": overhead / seconds["off"], "near_reused": tolerant.num_reused / total,
        "near_times": seconds["off"] / seconds["near"], "near_psnr_db": -10 * np.log10(max(squared / len(clip), 1e-30)),
    }  # fmt: skip


def cost_of_looking(x: Tensor, tile: int) -> float:
    """Seconds to remember a frame's tiles and compare them with the frame before, the model left out."""
    import torch

    from swinir.reuse import TileMemory

    memory = TileMemory()
    rows = [list(torch.split(strip, tile, dim=-1)) for strip in torch.split(x, tile, dim=-2)]
    others = [[part + 1 for part in row] for row in rows]
    run: Callable[[list[Tensor]], list[Tensor]] = list
    list(map(memory.frame(run), rows))
    return timed(lambda: list(map(memory.frame(run), others)))[1]


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started


def clips(size: tuple[int, int], num_frames: int) -> dict[str, Clip]:
    """Drawn clips, (H, W, 3) uint8 each: how much of a frame is as in the one before is what tells them apart."""
    from pipeline.video.sample import picture

    width, height = size
    rng = np.random.default_rng(0)
    still = np.asarray(picture(0, size))
    blank = np.full_like(still, 16)
    lines = blank.copy()
    lines[height // 3 : height // 2, width // 6 : -width // 6] = still[height // 3 : height // 2, width // 6 : -width // 6]

    def window(i: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        screen = still.copy()
        screen[8:24, 8 : 16 + 8 * i] = 240  # a line being typed
        return screen

    def drawing(i: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        page = still.copy()
        left = 8 * (i // 2)  # drawn for every second frame
        page[height // 2 : height // 2 + 32, left : left + 32] = (200, 60, 40)
        return page

    def noisy(codes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        return np.clip(still + rng.integers(-codes, codes + 1, still.shape), 0, 255).astype(np.uint8)

    return {
        "title card": [lines] * num_frames,
        "screen recording": [window(i) for i in range(num_frames)],
        "cartoon on twos": [drawing(i) for i in range(num_frames)],
        "still, noise of 1 code": [noisy(1) for _ in range(num_frames)],
        "film grain, 8 codes": [noisy(8) for _ in range(num_frames)],
    }
