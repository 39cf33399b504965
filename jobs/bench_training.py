"""Measure a step of training, forwards and backwards: by PyTorch, and by the compiled kernel, with the gradient's error.

swinir bench training
swinir bench training --model classical-x4 --patch 32 --batch-size 4
"""

from __future__ import annotations

import copy
import json
import statistics
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from pipeline.errors import ConfigError

if TYPE_CHECKING:  # torch loads with the first use: the command line's help does without
    import torch
    from torch import Tensor

    from swinir.model import SwinIR


def training(
    model: Annotated[str, typer.Option(help="Any of `swinir models` that is a network.")] = "lightweight-x2",
    patch: Annotated[int, typer.Option(help="Length of a patch, in small pixels.", min=8)] = 48,
    batch_size: Annotated[int, typer.Option(help="Patches in a step.", min=1)] = 8,
    rounds: Annotated[int, typer.Option(help="Of each way in turn, after one to warm up; medians count.", min=1)] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line instead of a table.")] = False,
) -> None:
    """A step of `swinir train` on the CPU, but for the optimizer, against PyTorch alone, in float32 and bfloat16."""
    result = measure(model, patch, batch_size, rounds)
    if as_json:
        print(json.dumps(result))
        return
    table = Table("way", "ms", "patches/s", "times as fast", "gradient's error", box=box.SIMPLE)
    for row in result["rows"]:
        table.add_row(
            row["way"], f"{row['ms']:.0f}", f"{row['patches_per_s']:.2f}", f"{row['times']:.2f}", f"{row['error']:.1e}"
        )
    Console().print(table)
    print(f"{model}, {batch_size} patches of {patch}, {result['device']}, {result['threads']} threads, torch {result['torch']}")


def measure(name: str, patch: int, batch_size: int, rounds: int) -> dict[str, Any]:
    """Every way in turn, round after round, from the same weights and patches; the first round warms up and is not counted."""
    import torch

    from jobs.measure import device_name

    ways = ways_to_train(name)
    config = ways["plain fp32"][0].config
    generator = torch.Generator().manual_seed(0)
    lr = torch.rand((batch_size, config.in_chans, patch, patch), generator=generator)
    hr = torch.rand((batch_size, config.in_chans, patch * config.upscale, patch * config.upscale), generator=generator)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    slopes: dict[str, Tensor] = {}
    for _ in range(rounds + 1):
        for way, (network, dtype) in ways.items():
            started = time.perf_counter()
            slopes[way] = slope(network, lr, hr, dtype)
            seconds[way].append(time.perf_counter() - started)
    medians = {way: statistics.median(each[1:]) for way, each in seconds.items()}
    truth = slopes["plain fp32"]
    rows = [
        {
            "way": way, "ms": median * 1e3, "patches_per_s": batch_size / median, "times": medians["plain fp32"] / median,
            "error": float((slopes[way] - truth).norm() / truth.norm()),
        }
        for way, median in medians.items()
    ]  # fmt: skip
    return {
        "model": name, "patch": patch, "batch_size": batch_size, "device": device_name(torch.device("cpu")),
        "threads": torch.get_num_threads(), "torch": torch.__version__, "rows": rows,
    }  # fmt: skip


def ways_to_train(name: str) -> dict[str, tuple[SwinIR, torch.dtype]]:
    """The network by PyTorch and by the kernel, each with the type that factors are rounded to."""
    import torch

    from swinir.cpu.gradients import trainable
    from swinir.model import SwinIR
    from swinir.weights import load_model

    try:
        network = load_model(name, "random")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if not isinstance(network, SwinIR):
        raise ConfigError(f"{name} is no network that can be trained; choose another of `swinir models`")
    network.train().requires_grad_(True)
    ways = {"plain fp32": (network, torch.float32), "plain bf16": (network, torch.bfloat16)}
    for way, dtype in (("swinir fp32", torch.float32), ("swinir bf16", torch.bfloat16)):
        # `trainable` leaves the convolutions of what it gets with their channels last, which the plain ways are not to have.
        ours = copy.deepcopy(network)
        if (faster := trainable(ours, dtype)) is not ours:
            ways[way] = (faster, dtype)
    return ways


def slope(network: SwinIR, lr: Tensor, hr: Tensor, dtype: torch.dtype) -> Tensor:
    """All gradients of the mean absolute error, one after another."""
    import torch

    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        output = network(lr)
    loss = torch.nn.functional.l1_loss(output, hr)
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(network.parameters()))])
