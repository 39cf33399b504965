"""Make pairs of degraded small pictures and their large originals: to look at, to train on, to measure a model with.

swinir degrade photographs/ pairs/ --config configs/degrade/low-bit-rate-video.yaml
swinir eval --model real-light-x2 --lr pairs/LR --hr pairs/HR
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from PIL import Image

from jobs.options import local
from jobs.settings import read_settings
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from swinir.train.pairs import Pair

Option = typer.Option
SIDES = ("LR", "HR")


def degrade(
    data: Annotated[str, typer.Argument(help="Photographs: a folder, or Parquet or tar files; local or by URL.")],
    out: Annotated[Path, typer.Argument(parser=local, help="A new folder, for LR/ and HR/ of equal names and pairs.png.")],
    scale: Annotated[int, Option(help="How many times smaller.", min=1)] = 2,
    crops: Annotated[int, Option(help="Of every photograph, each degraded in its own way.", min=1)] = 1,
    seed: Annotated[int, Option(help="Of all that is drawn by chance.", min=0)] = 0,
    config: Annotated[Path | None, Option(help="YAML of shares and ranges. [default: as real-light models train]")] = None,
    image_column: Annotated[str | None, Option(help="The column of Parquet files that holds the pictures.")] = None,
) -> None:
    """Degrade photographs as old, noisy, compressed footage is: pairs for `swinir eval` and for looking at."""
    from pipeline.dataset.pixels import RgbPictures
    from pipeline.video.worn import worn
    from swinir.train.degrade import Degradation
    from swinir.train.pairs import degraded_pairs, shown_on_sheet, write_sheet

    try:
        how = Degradation(**read_settings(config, {field.name for field in dataclasses.fields(Degradation)}))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{config}: {error}") from error
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is there and not empty; name a new folder")
    photographs = RgbPictures(data, image_column)
    try:
        with removed_on_failure(out):
            names = write_pairs(degraded_pairs(photographs, scale, how, crops, seed, worn), crops, out)
            if not names:
                raise ConfigError(f"{data}: no picture is large enough for pairs of x{scale}")
            write_sheet([read_pair(names[index], out) for index in shown_on_sheet(len(names))], out / "pairs.png")
    except OSError as error:
        raise ConfigError(f"cannot write {error.filename or out}: {error.strerror or error}") from error
    print(f"{len(names)} pairs in {out}; look at {out / 'pairs.png'}")


@contextmanager
def removed_on_failure(out: Path) -> Iterator[None]:
    """Leaves no part of the pairs behind, for which the same command would refuse the folder."""
    try:
        yield
    except BaseException:
        for side in SIDES:
            shutil.rmtree(out / side, ignore_errors=True)
        (out / "pairs.png").unlink(missing_ok=True)
        raise


def write_pairs(pairs: Iterable[Pair], crops: int, out: Path) -> list[str]:
    """Each pair as it comes; their names."""
    names = []
    for number, pair in enumerate(pairs):
        names.append(f"{number // crops:06d}-{number % crops}.png")
        for side, picture in zip(SIDES, pair, strict=True):
            (out / side).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(out / side / names[-1])
    return names


def read_pair(name: str, out: Path) -> Pair:
    small, large = (np.asarray(Image.open(out / side / name)) for side in SIDES)
    return small, large
