"""Measure a model on pairs of small and large images, bicubic beside it.

swinir eval --model lightweight-x2 --lr Set5/LR_bicubic/X2 --hr Set5/HR
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
import typer
from PIL import Image, UnidentifiedImageError
from rich.console import Console
from rich.table import Table

from pipeline.errors import ConfigError, MediaError

if TYPE_CHECKING:  # torch loads with the first use: the command line's help does without
    from swinir import Upscaler
    from swinir.metrics import Image as Picture

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"}


class Scores(NamedTuple):
    """One image: PSNR in dB and SSIM on luma, of the model and of bicubic."""

    image: str
    psnr: float
    ssim: float
    bicubic_psnr: float
    bicubic_ssim: float


def evaluate(
    lr: Annotated[Path, typer.Option(help="Folder of small images.")],
    hr: Annotated[Path, typer.Option(help="Folder of the true large ones, of the same names but for a final x2, x3..")],
    model: Annotated[str, typer.Option(help="A preset of `swinir models`, or auto with --weights.")] = "lightweight-x2",
    weights: Annotated[str | None, typer.Option(help="A weights file or URL instead of the preset's own.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    tile: Annotated[int | None, typer.Option(help="Tile length in input pixels.")] = None,
    json_only: Annotated[bool, typer.Option("--json", help="Print the JSON line alone.")] = False,
) -> None:
    """Print PSNR and SSIM on luma per image, bicubic beside them; the last line is JSON."""
    from swinir import Upscaler

    pairs = pair_images(lr, hr)
    try:
        upscaler = Upscaler(model, weights=weights, device=device, precision=precision, tile=tile)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    rows = [score(upscaler, small, large) for small, large in pairs]
    mean = mean_of(rows)
    if not json_only:
        Console().print(table(upscaler, [*rows, mean]))
    summary = {
        "model": upscaler.name, "weights_sha256": upscaler.weights_sha256, "scale": upscaler.scale,
        "device": str(upscaler.device), "precision": upscaler.precision,
        "mean": as_json(mean), "images": [as_json(row) for row in rows],
    }  # fmt: skip
    print(json.dumps(summary))


def pair_images(lr: Path, hr: Path) -> list[tuple[Path, Path]]:
    """Each small image with the large one of its stem, in order. Raises ConfigError where one is missing."""
    for folder in (lr, hr):
        if not folder.is_dir():
            raise ConfigError(f"{folder} is not a folder; give folders of images to --lr and --hr")
    large = {path.stem: path for path in images_in(hr)}
    pairs = []
    for path in images_in(lr):
        stem = path.stem if path.stem in large else re.sub(r"[-_]?x[2348]$", "", path.stem, flags=re.IGNORECASE)
        if stem not in large:
            raise ConfigError(f"{path} has no counterpart in {hr}: an image called {stem} is wanted there")
        pairs.append((path, large[stem]))
    if not pairs:
        raise ConfigError(f"{lr} holds no images; {', '.join(sorted(SUFFIXES))} are read")
    return pairs


def images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def read_rgb(path: Path) -> Picture:
    """(H, W, 3) RGB uint8."""
    try:
        with Image.open(path) as image:
            return np.array(image.convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise MediaError(f"{path} cannot be read as an image ({error})") from error


def score(upscaler: Upscaler, small: Path, large: Path) -> Scores:
    """PSNR and SSIM of the model and of bicubic; ``large`` may exceed a multiple of the scale, as uncropped originals do."""
    from swinir.metrics import psnr_ssim_y
    from swinir.resize import resize_uint8

    scale = upscaler.scale
    lr, hr = read_rgb(small), read_rgb(large)
    height, width = lr.shape[0] * scale, lr.shape[1] * scale
    if not (0 <= hr.shape[0] - height < scale and 0 <= hr.shape[1] - width < scale):
        sizes = f"{large} is {hr.shape[1]}x{hr.shape[0]}, but {small} enlarged x{scale} is {width}x{height}"
        raise ConfigError(f"{sizes}; is the model of the right scale?")
    truth = hr[:height, :width]
    ours = psnr_ssim_y(np.asarray(upscaler(lr), np.uint8), truth, scale)
    return Scores(small.name, *ours, *psnr_ssim_y(resize_uint8(lr, scale), truth, scale))


def mean_of(rows: list[Scores]) -> Scores:
    """The mean of each column."""
    columns = zip(*(row[1:] for row in rows), strict=True)
    return Scores("mean", *(sum(column) / len(rows) for column in columns))


def table(upscaler: Upscaler, rows: list[Scores]) -> Table:
    page = Table(title=f"{upscaler.name}, {upscaler.device} {upscaler.precision}, luma, border {upscaler.scale}")
    page.add_column("image")
    for heading in ("PSNR dB", "SSIM", "bicubic dB", "bicubic SSIM"):
        page.add_column(heading, justify="right")
    for name, psnr, ssim, bicubic_psnr, bicubic_ssim in rows:
        page.add_row(name, f"{psnr:.2f}", f"{ssim:.4f}", f"{bicubic_psnr:.2f}", f"{bicubic_ssim:.4f}")
    return page


def as_json(row: Scores) -> dict[str, float | str | None]:
    """Rounded; null for the infinite PSNR of equal images, which JSON cannot say."""
    numbers = {name: round(v, 4) if math.isfinite(v) else None for name, v in row._asdict().items() if name != "image"}
    return {"image": row.image, **numbers}
