"""The options that every job takes, declared once: which model, where it runs, what may be thrown away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from pipeline.errors import ConfigError

Model = Annotated[str | None, Option(help="A preset of `swinir models`. [default: real-light-x2; of images lightweight-x2]")]
Weights = Annotated[str | None, Option(help="A .pth or .safetensors file or URL for the model, or published.")]
Strength = Annotated[float | None, Option(help="From 0, fidelity weights, to 1, the model's own: real-x2, real-x4.")]
WeightsFidelity = Annotated[str | None, Option(help="The weights at strength 0, where the model has no published pair.")]
Ensemble = Annotated[int | None, Option(help="8: the mean over flips and transposes, at 8 times the cost. [default: 1]")]
Workers = Annotated[int | None, Option(help="Workers. [default: one per GPU, or as many as the cores feed]")]
Device = Annotated[str | None, Option(help="auto, cpu or cuda.")]
Precision = Annotated[str | None, Option(help="auto, fp32 or bf16.")]
Tile = Annotated[int | None, Option(help="Tile size in source pixels. [default: by device]")]
Address = Annotated[str | None, Option(help="A Ray cluster: auto or host:port. [default: this machine]")]
Fresh = Annotated[bool | None, Option("--fresh", help="Discard earlier work on this destination.")]
Overwrite = Annotated[bool | None, Option("--overwrite", help="Replace files that this program did not make.")]
AsJson = Annotated[bool, Option("--json", help="Progress and result as JSON lines.")]
ConfigFile = Annotated[Path | None, Option(help="A YAML file of settings; options go before it.")]


def local(named: str | Path) -> Path:
    """As a parser of typer's, for what is written on this machine alone. Raises ConfigError for a URL."""
    if "://" in str(named):
        raise ConfigError(f"{named} is a URL; name a local folder or file, and copy from there")
    return Path(named)
