"""List the models that can be named, and whether their weights are at hand.

swinir models
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:  # torch loads with the first use: the command line's help does without
    from swinir.presets import Preset


@dataclass(frozen=True, slots=True)
class Row:
    """One model: ``parameters`` is 0 and ``weights`` "none needed" for the baselines; ``size_bytes`` of the published file."""

    model: str
    task: str
    scale: int
    parameters: int
    size_bytes: int | None
    weights: str


def models(json_only: Annotated[bool, typer.Option("--json", help="One JSON line instead of the table.")] = False) -> None:
    """List the models: task, scale, size, and where the weights are."""
    from swinir.presets import PRESETS

    rows = [describe_preset(preset) for preset in PRESETS.values()]
    if json_only:
        print(json.dumps([asdict(row) for row in rows]))
        return
    page = Table("model", "task", "scale", "parameters", "file", "weights")
    for row in rows:
        millions = f"{row.parameters / 1e6:.1f} M" if row.parameters else ""
        size = f"{row.size_bytes / 1e6:.0f} MB" if row.size_bytes else ""
        page.add_row(row.model, row.task, f"x{row.scale}", millions, size, row.weights)
    Console().print(page)


def describe_preset(preset: Preset) -> Row:
    """What the table says of a preset."""
    from swinir.checkpoint import parameter_shapes

    if preset.config is None or preset.published is None:
        return Row(preset.name, preset.task, preset.scale, 0, None, "none needed")
    parameters = sum(math.prod(shape) for shape in parameter_shapes(preset.config).values())
    return Row(preset.name, preset.task, preset.scale, parameters, preset.published.size_bytes, where_weights_are(preset))


def where_weights_are(preset: Preset) -> str:
    """ "bundled", "cached" or "to download": what naming the model will use or do."""
    from swinir.weights import bundled_file, cached_file

    if bundled_file(preset).exists():
        return "bundled"
    return "cached" if cached_file(preset).exists() else "to download"
