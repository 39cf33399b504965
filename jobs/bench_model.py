"""Measure the model alone, against other ways to compute it.

swinir bench model
swinir bench model --model classical-x4 --size 128x96 --against reference,plain,openvino
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from pipeline.errors import ConfigError

BASELINES = ("reference", "plain", "openvino")


def model(
    model: Annotated[str, typer.Option(help="Any of `swinir models` that is a network.")] = "lightweight-x2",
    size: Annotated[str, typer.Option(help="Of the input, WIDTHxHEIGHT in pixels.")] = "240x160",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    against: Annotated[
        str, typer.Option(help="Baselines, the first being 1.0: reference, plain, openvino.")
    ] = "reference,plain",
    reference: Annotated[Path | None, typer.Option(help="A checkout of JingyunLiang/SwinIR, to be the reference.")] = None,
    rounds: Annotated[
        int,
        typer.Option(
            help="Of each way in turn; medians count. On a GPU a baseline's first is its first pass of that size.",
            min=1,
        ),
    ] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line instead of a table.")] = False,
) -> None:
    """The model alone against the published way to compute it, against plain PyTorch and against OpenVINO.

    Weights are random where none are at hand: they change nothing about the time.
    """
    from jobs.measure import measure, parse_size  # torch loads with the first use: the command line's help does without

    names = [name.strip() for name in against.split(",") if name.strip()]
    if unknown := set(names) - set(BASELINES):
        raise ConfigError(f"--against knows {', '.join(BASELINES)}, got {', '.join(sorted(unknown))}")
    result = measure(model, parse_size(size), device, names, reference, rounds)
    if as_json:
        print(json.dumps(result))
        return
    table = Table("way", "ms", "times as fast", "max error", "PSNR dB", "TFLOP/s", "of peak", box=box.SIMPLE)
    for row in result["rows"]:
        table.add_row(
            row["way"], f"{row['ms']:.1f}", f"{row['times']:.2f}", f"{row['max_error']:.1e}", f"{row['psnr_db']:.1f}",
            f"{row['tflops']:.3f}", f"{row['of_peak']:.2f}",
        )  # fmt: skip
    Console().print(table)
    if result["rows"][-1]["peak_gib"] is not None:
        print("GiB of memory: " + ", ".join(f"{row['way']} {row['peak_gib']:.1f}" for row in result["rows"]))
    peaks = ", ".join(f"{name} {value:.3f}" for name, value in result["peak_tflops"].items())
    print(f"{model}, {size}, {result['device']}, {result['threads']} threads, torch {result['torch']}")
    print(f"{result['gmacs']:.2f} G multiply-adds; peak of a matrix product in this run, TFLOP/s: {peaks}")
