"""Train a model on photographs; the same command again goes on where it stopped.

swinir train photographs/ runs/x2 --steps 5000 --val-lr Set5/X2 --val-hr Set5/HR --export x2.safetensors
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.datasets import pair_images, read_rgb
from jobs.settings import read_settings
from pipeline.errors import ConfigError

if TYPE_CHECKING:  # torch loads with the first use: the command line's help does without
    from swinir.pairs import Pair
    from swinir.training import TrainConfig, Trainer


def train(
    data: Annotated[str, typer.Argument(help="Photographs: a folder, or Parquet or tar files; local or by URL.")],
    out: Annotated[Path, typer.Argument(help="Folder of the run: state, log and curve; an interrupted run goes on from it.")],
    model: Annotated[str | None, typer.Option(help="The preset whose architecture to train [lightweight-x2].")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Patches in a step.")] = None,
    patch: Annotated[int | None, typer.Option(help="Length of a patch, in small pixels.")] = None,
    lr: Annotated[float | None, typer.Option(help="The highest learning rate.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the initial weights and the choice of patches.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32 or bf16.")] = None,
    loss: Annotated[str | None, typer.Option(help="l1, or l2 for the shortest runs.")] = None,
    val_lr: Annotated[Path | None, typer.Option(help="Folder of small images to validate on.")] = None,
    val_hr: Annotated[Path | None, typer.Option(help="Folder of their large originals.")] = None,
    start_from: Annotated[Path | None, typer.Option(help="Weights to begin at, instead of from scratch.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    every: Annotated[int, typer.Option(help="Steps between validating, logging and saving.", min=1)] = 250,
    config: Annotated[Path | None, typer.Option(help="YAML with any of the settings of a run; options win over it.")] = None,
    image_column: Annotated[str | None, typer.Option(help="The column of Parquet files that holds the pictures.")] = None,
    export: Annotated[Path | None, typer.Option(help="Where to write the averaged weights, .safetensors.")] = None,
) -> None:
    """Train a model on photographs, resumable to the step."""
    from pipeline.dataset.pixels import rgb_pictures
    from pipeline.video.worn import worn
    from swinir.checkpoint import read_checkpoint
    from swinir.pairs import write_sheet
    from swinir.training import Trainer, training_patches

    options = {
        "model": model, "steps": steps, "batch_size": batch_size, "patch": patch,
        "learning_rate": lr, "seed": seed, "precision": precision, "loss": loss,
    }  # fmt: skip
    given = {name: value for name, value in options.items() if value is not None}
    target = pick_device(device)
    settings = train_config(read_settings(config, known_settings()) | given, target.type)
    if (val_lr is None) != (val_hr is None):
        raise ConfigError("--val-lr and --val-hr belong together; give both or neither")
    validation = validation_pairs(val_lr, val_hr, settings.model.upscale) if val_lr and val_hr else []
    photographs = rgb_pictures(data, image_column)
    try:
        patches = training_patches(photographs, settings, worn)
        weights = read_checkpoint(start_from).state if start_from else None
        trainer = Trainer(settings, patches, out, target, weights)
        write_sheet(patches.pairs, out / "pairs.png")
    except (ValueError, RuntimeError) as error:
        raise ConfigError(" ".join(str(error).split())[:300]) from error
    print(
        f"{len(photographs)} photographs, {len(validation)} validation pairs, {target}, step {trainer.step} of {settings.steps}"
    )
    trainer.run(validation, lambda row: print(json.dumps(row), flush=True), every)
    if export is not None:
        export_weights(
            trainer, validation, {"source": data.rstrip("/").rpartition("/")[2], "photographs": len(photographs)}, export
        )
        print(f"wrote {export}")


def pick_device(name: str) -> Any:  # noqa: ANN401 - a torch.device; jobs name no torch type
    from swinir.upscaler import choose_device

    try:
        return choose_device(name)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def known_settings() -> set[str]:
    """The keys of a YAML file of ``swinir train``; ``model`` is a preset's name."""
    from swinir.training import TrainConfig

    return {field.name for field in dataclasses.fields(TrainConfig)}


def train_config(settings: dict[str, Any], device: str) -> TrainConfig:
    """The settings as a TrainConfig. Raises ConfigError where they name no model that can be trained."""
    from swinir.presets import preset
    from swinir.training import TrainConfig
    from swinir.upscaler import choose_device, choose_precision

    name = settings.pop("model", "lightweight-x2")
    precision = settings.pop("precision", "auto")
    try:
        architecture = preset(name).config
        if architecture is None or architecture.upscale == 1 or architecture.in_chans != 3:
            raise ValueError(f"{name} is not trained here: pairs are made by bicubic reduction of RGB; name an enlarging model")
        return TrainConfig(model=architecture, precision=choose_precision(precision, choose_device(device)), **settings)
    except (ValueError, TypeError) as error:
        raise ConfigError(str(error)) from error


def validation_pairs(lr: Path, hr: Path, scale: int) -> list[Pair]:
    """(small, large) pictures, the large ones cropped to ``scale`` times the small."""
    pairs = []
    for small, large in pair_images(lr, hr):
        picture, truth = read_rgb(small), read_rgb(large)
        height, width = picture.shape[0] * scale, picture.shape[1] * scale
        if truth.shape[0] < height or truth.shape[1] < width:
            raise ConfigError(f"{large} is smaller than {small} enlarged x{scale}; is --val-lr of the right scale?")
        pairs.append((picture, truth[:height, :width]))
    return pairs


def export_weights(trainer: Trainer, validation: list[Pair], data: dict[str, Any], path: Path) -> None:
    """The averaged weights as safetensors with their provenance; beside first, then renamed."""
    from swinir.checkpoint import to_bytes

    metadata = {
        "config": json.dumps(dataclasses.asdict(trainer.config.model)),
        "training": json.dumps(dataclasses.asdict(trainer.config)),
        "steps": json.dumps(trainer.step),
        "psnr": json.dumps(round(trainer.validate(validation), 4) if validation else None),
        "data": json.dumps(data),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    state = {name: value.detach().cpu() for name, value in trainer.average.state_dict().items()}
    part.write_bytes(to_bytes(state, metadata))
    os.replace(part, path)
