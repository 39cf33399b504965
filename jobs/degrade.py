"""Make pairs of degraded small pictures and their large originals: to look at, to train on, to measure a model with.

swinir degrade photographs/ pairs/ --config configs/degrade/low-bit-rate-video.yaml
swinir eval --model real-light-x2 --lr pairs/LR --hr pairs/HR
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from jobs.settings import read_settings
from pipeline.errors import ConfigError

Option = typer.Option


def degrade(
    data: Annotated[str, typer.Argument(help="Photographs: a folder, or Parquet or tar files; local or by URL.")],
    out: Annotated[Path, typer.Argument(help="A new folder, for LR/ and HR/ of equal names and pairs.png.")],
    scale: Annotated[int, Option(help="How many times smaller.", min=1)] = 2,
    crops: Annotated[int, Option(help="Of every photograph, each degraded in its own way.", min=1)] = 1,
    seed: Annotated[int, Option(help="Of all that is drawn by chance.", min=0)] = 0,
    config: Annotated[Path | None, Option(help="YAML of shares and ranges. [default: as real-light models train]")] = None,
    image_column: Annotated[str | None, Option(help="The column of Parquet files that holds the pictures.")] = None,
) -> None:
    """Degrade photographs as old, noisy, compressed footage is: pairs for `swinir eval` and for looking at."""
    from PIL import Image

    from pipeline.dataset.pixels import RgbPictures
    from pipeline.video.worn import worn
    from swinir.train.degrade import Degradation
    from swinir.train.pairs import degraded_pairs, write_sheet

    try:
        how = Degradation(**read_settings(config, {field.name for field in dataclasses.fields(Degradation)}))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{config}: {error}") from error
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is there and not empty; name a new folder")
    photographs = RgbPictures(data, image_column)
    try:
        pairs = list(degraded_pairs(photographs, scale, how, crops, seed, worn))
        if not pairs:
            raise ConfigError(f"{data}: no picture is large enough for pairs of x{scale}")
        for side in ("LR", "HR"):
            (out / side).mkdir(parents=True, exist_ok=True)
        for number, pair in enumerate(pairs):
            for side, picture in zip(("LR", "HR"), pair, strict=True):
                Image.fromarray(picture).save(out / side / f"{number // crops:06d}-{number % crops}.png")
        write_sheet(pairs, out / "pairs.png")
    except OSError as error:
        raise ConfigError(f"cannot write {error.filename or out}: {error.strerror or error}") from error
    print(f"{len(pairs)} pairs in {out}; look at {out / 'pairs.png'}")
