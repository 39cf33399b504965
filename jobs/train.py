"""Train a model on photographs; the same command again goes on where it stopped.

swinir train photographs/ runs/x2 --steps 5000 --val-lr Set5/X2 --val-hr Set5/HR --export x2.safetensors
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from jobs.datasets import pair_images, read_rgb
from jobs.options import Address, local
from jobs.settings import read_settings, refuse_unknown
from pipeline.errors import ConfigError, InterruptedRunError
from pipeline.storage import local_path

if TYPE_CHECKING:  # torch loads with the first use: the command line's help does without
    from swinir.train.loop import Trainer
    from swinir.train.pairs import Pair
    from swinir.train.recipe import TrainConfig


@dataclass(frozen=True)
class Run:
    """What each process of a run does; every path is absolute, for Ray Train's have folders of their own."""

    data: str
    image_column: str | None
    out: Path
    settings: dict[str, Any]
    validation: tuple[Path, Path] | None
    start_from: tuple[str, str | None] | None  # a model, and the file of its weights where it is not the model's own
    every: int
    export: Path | None

    def __call__(self, device: str, tell: Callable[[str], None]) -> None:
        """Train to the last step, going on from what ``out`` holds; the first process tells lines and exports."""
        from pipeline.dataset.pixels import ReadablePictures, RgbPictures
        from pipeline.preflight import pick_device
        from pipeline.units import digest
        from pipeline.video.worn import worn
        from swinir.checkpoint import weights_digest
        from swinir.cpu import gradients
        from swinir.gpu import training as on_gpu
        from swinir.train.loop import Trainer
        from swinir.train.pairs import write_sheet
        from swinir.train.patches import PatchError, training_patches
        from swinir.train.ranks import place_among_ranks
        from swinir.weights import load_checkpoint

        target = pick_device(device)
        settings = train_config(self.settings, target.type)
        validation = validation_pairs(*self.validation, settings.model.upscale) if self.validation else []
        photographs = RgbPictures(self.data, self.image_column, exclude=str(self.out))
        try:
            is_first = place_among_ranks()[0] == 0
            # To take a picture out makes another run of one that has begun.
            readable = ReadablePictures(photographs, tell if is_first else lambda line: None)
            patches = training_patches(photographs if settings.pictures_at_once is None else readable, settings, worn)
            weights = load_checkpoint(*self.start_from).state if self.start_from else None
            ours = gradients if target.type == "cpu" else on_gpu
            # On a CPU what PyTorch compiles would be in place of our kernel.
            way = None if settings.compile and target.type == "cpu" else ours.trainable
            # A model by name is the same in the next version of this package.
            start = weights_digest(weights) if weights and self.start_from and self.start_from[1] else self.start_from
            origin = digest([photographs.names_and_sizes(), start])
            trainer = Trainer(settings, patches, self.out, target, weights, way, origin)
            if trainer.rank == 0:
                (self.out / "log.jsonl").touch()  # by which the folder is known as that of a run, and no photograph
                write_sheet(patches.pairs_at(trainer.step), self.out / "pairs.png")
        except ValueError as error:
            raise ConfigError(" ".join(str(error).split())[:300]) from error
        try:
            with interrupts() as asked_to_stop:
                if trainer.rank == 0:
                    num_small = patches.num_too_small(trainer.step)
                    small = f" ({num_small} too small for a patch)" * bool(num_small)
                    given = f"{len(photographs)} photographs{small}, {len(validation)} validation pairs"
                    tell(f"{given}, {target}, step {trainer.step} of {settings.steps}")
                trainer.run(validation, lambda row: tell(json.dumps(row)), self.every, asked_to_stop)
        except (PatchError, FloatingPointError) as error:
            raise ConfigError(str(error)) from error
        if trainer.step < settings.steps:
            raise InterruptedRunError(
                f"stopped at step {trainer.step} of {settings.steps}; the same command goes on from there"
            )
        if trainer.rank == 0 and self.export is not None:
            source = self.data.rstrip("/").rpartition("/")[2]
            export_weights(trainer, validation, {"source": source, "photographs": len(photographs)}, self.export)
            tell(f"wrote {self.export}")


@contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or SIGTERM has come: the first lets a step end, a second stops at once."""
    asked = False

    def ask(number: int, frame: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def train(
    data: Annotated[str, typer.Argument(help="Photographs: a folder, or Parquet or tar files; local or by URL.")],
    out: Annotated[
        Path, typer.Argument(parser=local, help="Folder of the run: state, log and curve; an interrupted run goes on from it.")
    ],
    model: Annotated[str | None, typer.Option(help="The preset whose architecture to train. [default: lightweight-x2]")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Patches in a step.")] = None,
    patch: Annotated[int | None, typer.Option(help="Length of a patch, in small pixels.")] = None,
    lr: Annotated[float | None, typer.Option(help="The highest learning rate.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the initial weights and the choice of patches.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32 or bf16.")] = None,
    loss: Annotated[str | None, typer.Option(help="l1, or l2 for the shortest runs.")] = None,
    val_lr: Annotated[Path | None, typer.Option(help="Folder of small images to validate on.")] = None,
    val_hr: Annotated[Path | None, typer.Option(help="Folder of their large originals.")] = None,
    start_from: Annotated[
        str | None, typer.Option(help="Weights to begin at, instead of from scratch: a model by name, or a file.")
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="auto, cpu or cuda.")] = "auto",
    every: Annotated[int, typer.Option(help="Steps between validating, logging and saving.", min=1)] = 250,
    config: Annotated[Path | None, typer.Option(help="YAML with any of the settings of a run; options win over it.")] = None,
    image_column: Annotated[str | None, typer.Option(help="The column of Parquet files that holds the pictures.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes, one per GPU. [default: this one, without Ray]", min=1)] = None,
    address: Address = None,
    export: Annotated[
        Path | None, typer.Option(parser=local, help="Where to write the averaged weights, .safetensors.")
    ] = None,
) -> None:
    """Train a model on photographs, resumable to the step."""
    options = {
        "model": model, "steps": steps, "batch_size": batch_size, "patch": patch,
        "learning_rate": lr, "seed": seed, "precision": precision, "loss": loss,
    }  # fmt: skip
    settings = read_settings(config, known_settings()) | {name: value for name, value in options.items() if value is not None}
    train_config(settings, "cpu")  # refused before any work
    if export and export.is_dir():
        raise ConfigError(f"--export {export} is a folder; name a .safetensors file")
    if export and not next(parent for parent in export.absolute().parents if parent.exists()).is_dir():
        raise ConfigError(f"--export {export} lies in no folder, but below a file")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; name a folder for the run")
    if out.is_dir() and out.resolve() == Path(local_path(data) or data).resolve():
        raise ConfigError(f"{out} holds the photographs; name a folder of its own for the run, which may lie in it")
    if (val_lr is None) != (val_hr is None):
        raise ConfigError("--val-lr and --val-hr belong together; give both or neither")
    if address and not workers:
        raise ConfigError("--address takes the number of processes to start there; add --workers")
    run = Run(
        data=local_path(data) or data,
        image_column=image_column,
        out=out.absolute(),
        settings=settings,
        validation=(val_lr.absolute(), val_hr.absolute()) if val_lr and val_hr else None,
        start_from=starting_point(start_from) if start_from else None,
        every=every,
        export=export and export.absolute(),
    )
    from pipeline.preflight import lease

    try:
        run.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write in {out}: {error.strerror or error}") from error
    tell = partial(print, flush=True)
    with lease(str(run.out), str(run.out / "state.pt")):
        if not workers:
            run(device, tell)
            return
        from pipeline.driver import RunOptions
        from pipeline.training import train_on_cluster

        where = RunOptions(num_workers=workers, device=device, address=address)
        for line in train_on_cluster(run, run.out / "state.pt", where):
            tell(line)


def starting_point(named: str) -> tuple[str, str | None]:
    """A model of that name with its own weights, or a file, which counts where there is one, and whatever it holds."""
    from swinir.presets import PRESETS
    from swinir.weights import AUTO

    path = Path(named).expanduser().absolute()
    if named in PRESETS and not path.is_file():
        return named, None
    return AUTO, named if "://" in named else str(path)


def known_settings() -> set[str]:
    """The keys of a YAML file of ``swinir train``; ``model`` is a preset's name."""
    from swinir.train.recipe import TrainConfig

    return {field.name for field in dataclasses.fields(TrainConfig)}


def train_config(settings: dict[str, Any], device: str) -> TrainConfig:
    """The settings as a TrainConfig. Raises ConfigError where they name no model that can be trained."""
    from swinir.device import choose_device, choose_precision
    from swinir.presets import preset
    from swinir.train.degrade import Degradation
    from swinir.train.recipe import TrainConfig

    settings = dict(settings)
    if isinstance(degradation := settings.get("degradation"), dict):
        refuse_unknown(degradation, {field.name for field in dataclasses.fields(Degradation)}, "degradation")
    name = settings.pop("model", "lightweight-x2")
    precision = settings.pop("precision", "auto")
    if not isinstance(name, str):
        raise ConfigError(f"model must be a name of `swinir models`, got {name!r}")
    try:
        architecture = preset(name).config
        if architecture is None:
            raise ValueError(f"{name} is not trained here: it has no weights, or its file alone says what network it is")
        if architecture.in_chans != 3:
            raise ValueError(f"{name} is not trained here: pairs are RGB pictures; name a model that takes those")
        if architecture.upscale == 1 and settings.get("degradation") is None:
            raise ValueError(
                f"{name} keeps the size, so pairs differ by degradation alone; say which in --config (degradation)"
            )
        return TrainConfig(model=architecture, precision=choose_precision(precision, choose_device(device)), **settings)
    except (ValueError, TypeError) as error:
        raise ConfigError(str(error)) from error


def validation_pairs(lr: Path, hr: Path, scale: int) -> list[Pair]:
    """(small, large) pictures, the large ones cropped to ``scale`` times the small."""
    from swinir.metrics import SSIM_PIXELS

    pairs = []
    for small, large in pair_images(lr, hr):
        picture, truth = read_rgb(small), read_rgb(large)
        height, width = picture.shape[0] * scale, picture.shape[1] * scale
        if not (height <= truth.shape[0] < height + scale and width <= truth.shape[1] < width + scale):
            raise ConfigError(f"{large} is not of the size of {small} enlarged x{scale}; is --val-lr of the right scale?")
        if min(height, width) - 2 * scale < SSIM_PIXELS:
            raise ConfigError(f"{large} is too small to validate on; SSIM wants {SSIM_PIXELS + 2 * scale} pixels each way")
        pairs.append((picture, truth[:height, :width]))
    return pairs


def export_weights(trainer: Trainer, validation: list[Pair], data: dict[str, Any], path: Path) -> None:
    """The averaged weights as safetensors in float16 with their provenance; beside first, then renamed.

    Float16 halves the file and leaves the output where it was: `lightweight-x2` moved by 0.0004 dB on Set5.
    """
    from swinir.checkpoint import to_bytes

    metadata = {
        "config": json.dumps(dataclasses.asdict(trainer.config.model)),
        "training": json.dumps(dataclasses.asdict(trainer.config)),
        "steps": json.dumps(trainer.step),
        "psnr": json.dumps(round(trainer.validate(validation), 3) if validation else None),
        "data": json.dumps(data),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    state = {name: value.detach().cpu().half() for name, value in trainer.average.state_dict().items()}
    part.write_bytes(to_bytes(state, metadata))
    os.replace(part, path)
