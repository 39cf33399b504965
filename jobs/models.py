"""List the models that can be named: what they are for, how large and how fast they are, and whether their weights are at hand.

swinir models
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:  # torch loads with the first use: the command line's help does without
    from swinir.model import SwinIRConfig
    from swinir.presets import Preset


# Millions of multiply-adds per input pixel up to which a model is called so; every class is some ten times the one before.
SPEEDS = {"instant": 0.0, "fast": 2.0, "slow": 20.0, "very slow": math.inf}


@dataclass(frozen=True, slots=True)
class Row:
    """One model: ``parameters`` and ``mmacs_per_pixel`` (of the input) are 0 for baselines, None where only a file can say.

    ``size_bytes`` is of the published file; ``weights`` is "bundled", "cached", "to download", "by hand" or "none needed".
    """

    model: str
    task: str
    scale: int
    parameters: int | None
    mmacs_per_pixel: float | None
    speed: str | None
    size_bytes: int | None
    licence: str | None
    weights: str


def models(json_only: Annotated[bool, typer.Option("--json", help="One JSON line instead of the table.")] = False) -> None:
    """List the models: task, scale, size, speed, and where the weights are; with --json their licences too."""
    from swinir.presets import PRESETS

    rows = [describe_preset(preset) for preset in PRESETS.values()]
    if json_only:
        print(json.dumps([asdict(row) for row in rows]))
        return
    page = Table("model", "task", "scale", "file", "MMAC/px", "speed", "weights", box=None, pad_edge=False)
    for row in rows:
        macs = f"{row.mmacs_per_pixel:.1f}" if row.mmacs_per_pixel else ""
        size = f"{row.size_bytes / 1e6:.0f} MB" if row.size_bytes else ""
        page.add_row(row.model, row.task, f"x{row.scale}", size, macs, row.speed, row.weights)
    Console().print(page)


def describe_preset(preset: Preset) -> Row:
    """What the table says of a preset."""
    if preset.weightless:
        return Row(preset.name, preset.task, preset.scale, 0, 0.0, "instant", None, None, "none needed")
    config = config_of(preset)
    parameters = count_parameters(config) if config else None
    macs = mmacs_per_pixel(config) if config else None
    speed = next(name for name, most in SPEEDS.items() if macs <= most) if macs is not None else None
    size, licence = (preset.published.size_bytes, preset.published.licence) if preset.published else (None, None)
    return Row(preset.name, preset.task, preset.scale, parameters, macs, speed, size, licence, where_weights_are(preset))


def config_of(preset: Preset) -> SwinIRConfig | None:
    """The architecture: what the preset states, else what its file holds if that is here."""
    from swinir.checkpoint import WeightsError, read_checkpoint
    from swinir.weights import cached_file

    if preset.config or not cached_file(preset).exists():
        return preset.config
    try:
        return read_checkpoint(cached_file(preset)).config
    except WeightsError:  # naming the model says what is wrong with the file
        return None


def count_parameters(config: SwinIRConfig) -> int:
    from swinir.checkpoint import parameter_shapes

    return sum(math.prod(shape) for shape in parameter_shapes(config).values())


def mmacs_per_pixel(config: SwinIRConfig) -> float:
    """Millions of multiply-adds for one input pixel: each weight's, for all pixels it is applied to, and attention's two."""
    from swinir.checkpoint import parameter_shapes

    products = {name: math.prod(shape) for name, shape in parameter_shapes(config).items() if name.endswith(".weight")}
    macs = sum(count * enlarged(name, config.upscale) for name, count in products.items() if "norm" not in name)
    macs += 2 * config.window_size**2 * config.embed_dim * sum(config.depths)
    return round(macs / 1e6, 2)


def enlarged(name: str, scale: int) -> int:
    """Pixels that a weight is applied to for each input pixel: those behind an upsampling step see larger pictures."""
    if name in ("conv_last.weight", "conv_hr.weight"):
        return scale**2
    if step := re.fullmatch(r"conv_up(\d)\.weight", name):  # behind the nearest neighbour's doubling
        return int(4 ** int(step[1]))
    step = re.fullmatch(r"upsample\.(\d)\.weight", name)  # before the shuffle, which is the odd step
    return int(4 ** (int(step[1]) // 2)) if step else 1


def where_weights_are(preset: Preset) -> str:
    """ "bundled", "cached", "to download" or "by hand": what naming the model will use or do."""
    from swinir.weights import bundled_file, cached_file

    if bundled_file(preset).exists():
        return "bundled"
    if cached_file(preset).exists():
        return "cached"
    return "to download" if preset.published and preset.published.url else "by hand"
