"""Measure a model on test sets, by the paper's tasks, with a baseline and the published figures beside it.

swinir eval Set5 Set14 --datasets testsets --model lightweight-x2
swinir eval --model lightweight-x2 --lr Set5/LR_bicubic/X2 --hr Set5/HR
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.table import Table

from jobs.datasets import Dataset, Pair, find_dataset, pair_images, read_image, title_of, usual_datasets
from jobs.options import Ensemble, Strength, WeightsFidelity
from pipeline.errors import ConfigError

if TYPE_CHECKING:  # torch loads with the first use: the command line's help does without
    from swinir import Upscaler
    from swinir.evaluation import Measured, Scores, Task
    from swinir.perceptual import Lpips
    from swinir.strip import Spot

NUM_SPOTS = 6  # in a strip


class Row(NamedTuple):
    image: str
    ours: Scores
    baseline: Scores


def evaluate(
    sets: Annotated[
        list[str] | None,
        typer.Argument(
            help="Test sets: folders, or names such as Set5 under --datasets. [default: the task's usual ones there]"
        ),
    ] = None,
    datasets: Annotated[Path | None, typer.Option(envvar="SWINIR_DATASETS", help="Where test sets lie, by name.")] = None,
    lr: Annotated[Path | None, typer.Option(help="Folder of small, or degraded, images, instead of test sets.")] = None,
    hr: Annotated[Path | None, typer.Option(help="Folder of the true ones, of the same names but for a final x2, x3..")] = None,
    noise: Annotated[int | None, typer.Option(min=1, help="Denoising of this sigma, in codes. [default: by model]")] = None,
    jpeg: Annotated[int | None, typer.Option(min=1, max=100, help="JPEG of this quality. [default: by model]")] = None,
    model: Annotated[str, typer.Option(help="A preset of `swinir models`, or auto with --weights.")] = "lightweight-x2",
    weights: Annotated[str | None, typer.Option(help="A weights file or URL instead of the preset's own.")] = None,
    strength: Strength = None,
    weights_fidelity: WeightsFidelity = None,
    ensemble: Ensemble = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    tile: Annotated[int | None, typer.Option(help="Tile length in input pixels.")] = None,
    colours: Annotated[bool, typer.Option("--colours", help="Say instead how far plain colours move.")] = False,
    lpips: Annotated[bool, typer.Option("--lpips", help="Also LPIPS, lower is better; fetches its weights once.")] = False,
    markdown: Annotated[Path | None, typer.Option(help="Write the tables to this file, as Markdown.")] = None,
    strip: Annotated[Path | None, typer.Option(help="Write the spots of most difference to this PNG.")] = None,
    json_only: Annotated[bool, typer.Option("--json", help="Print the JSON line alone.")] = False,
) -> None:
    """Print PSNR and SSIM per image, a baseline and published figures beside them; the last line is JSON."""
    if (lr is None) != (hr is None) or (lr and sets):
        raise ConfigError("--lr and --hr belong together, and stand for the names of test sets; give both alone or neither")
    if colours and (sets or lr or noise or jpeg or lpips or markdown or strip):
        raise ConfigError("--colours measures no pictures; leave out what is about those, or run it once with and once without")
    for file in (markdown, strip):
        if file and file.is_dir():
            raise ConfigError(f"{file} cannot be written: it is a folder; name a file")
        if file and not file.parent.is_dir():
            raise ConfigError(f"{file} cannot be written: {file.parent} is not a folder; make it first")
    found = [pairs_of(lr, hr)] if lr and hr else []
    upscaler = open_model(
        model, weights=weights, strength=strength, weights_fidelity=weights_fidelity, ensemble=ensemble or 1,
        device=device, precision=precision, tile=tile,
    )  # fmt: skip
    if colours:
        print(json.dumps({"model": upscaler.name, "weights_sha256": upscaler.weights_sha256, **shifts_of(upscaler)}))
        return
    task = task_for(upscaler, model, noise, jpeg, bool(lr))
    found = found or chosen(sets or [], datasets, task)
    results, spots = measure_all(upscaler, task, found, open_lpips() if lpips else None, NUM_SPOTS if strip else 0)
    if strip:
        write_strip(spots, task, upscaler.name, strip)
    pages = [page(name, rows, task, upscaler) for name, rows in results]
    if markdown:
        write_markdown(pages, markdown)
    if not json_only:
        for parts in pages:
            Console().print(as_table(*parts))
    print(json.dumps(summary(results, task, upscaler)))


def open_model(model: str, **settings: Any) -> Upscaler:  # noqa: ANN401 - Upscaler's own
    """``Upscaler`` with its settings. Raises ConfigError."""
    from swinir import Upscaler

    try:
        return Upscaler(model, **settings)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def open_lpips() -> Lpips:
    from swinir.perceptual import load_lpips

    try:
        return load_lpips()
    except ValueError as error:
        raise ConfigError(f"--lpips: {error}") from error


def shifts_of(upscaler: Upscaler) -> dict[str, float]:
    """How far plain colours move, in codes of 255. Raises ConfigError for a model of grey pictures."""
    from swinir.evaluation import colour_shifts

    if upscaler.in_chans == 1:
        raise ConfigError(f"--colours: {upscaler.name} takes grey pictures; leave it out")
    try:
        shifts = colour_shifts(upscaler.upscale, upscaler.scale)
    except (ValueError, FloatingPointError) as error:
        raise ConfigError(f"--colours: {error}") from error
    return {"colours": len(shifts), "median_codes": round(statistics.median(shifts), 2), "worst_codes": round(max(shifts), 2)}


def task_for(upscaler: Upscaler, model: str, noise: int | None, jpeg: int | None, have_pairs: bool) -> Task:
    """What the model is measured at; pairs need no word about how the small ones were made."""
    from swinir.evaluation import Task, task_of

    try:
        return task_of(model, upscaler.scale, upscaler.in_chans, noise, jpeg)
    except ValueError as error:
        if have_pairs and noise is None and jpeg is None:
            return Task("sr", upscaler.scale)
        raise ConfigError(str(error)) from error


def pairs_of(lr: Path, hr: Path) -> Dataset:
    return Dataset(title_of(hr), [Pair(*pair) for pair in pair_images(lr, hr)])


def chosen(sets: list[str], root: Path | None, task: Task) -> list[Dataset]:
    """The test sets named, or all that the paper has for the task and that are there."""
    scale = task.level if task.kind == "sr" else 1
    if sets:
        return [find_dataset(name, root, scale) for name in sets]
    if root is None:
        raise ConfigError("nothing to measure on: name test sets or folders, or give --datasets, or --lr and --hr")
    return usual_datasets("sr" if task.kind == "sr" else f"{'grey' if task.grey else 'colour'} {task.kind}", root, scale)


def measure_all(
    upscaler: Upscaler, task: Task, found: Sequence[Dataset], perceptual: Lpips | None, num_spots: int
) -> tuple[list[tuple[str, list[Row]]], list[Spot]]:
    """The rows of each test set, and of all pictures the ``num_spots`` spots where model and baseline differ most."""
    from swinir.strip import worst_spot

    results: list[tuple[str, list[Row]]] = []
    spots: list[Spot] = []
    for name, pairs in found:
        rows = []
        for pair in pairs:
            measured = measure_pair(upscaler, task, pair, perceptual)
            row = Row((pair.small or pair.large).name, measured.ours, measured.baseline)
            rows.append(row)
            if num_spots:
                label = f"{name} {row.image}: {row.baseline.psnr:.2f} -> {row.ours.psnr:.2f} dB,"
                spots = sorted([*spots, worst_spot(label, measured.pictures)], key=lambda spot: -spot.difference)[:num_spots]
        results.append((name, rows))
    return results, spots


def measure_pair(upscaler: Upscaler, task: Task, pair: Pair, perceptual: Lpips | None = None) -> Measured:
    """Read, degrade where there is no degraded picture, restore, compare.

    ``large`` may exceed a multiple of the scale, as uncropped originals do.
    """
    from swinir.evaluation import as_tensor, degraded, measure, truth_for

    truth = truth_for(task, read_image(pair.large, keep_grey=task.kind != "sr" and task.grey))
    try:
        if pair.small is None:
            x = degraded(task, truth)
        else:
            small = read_image(pair.small, keep_grey=truth.ndim == 2)
            x = as_tensor(truth_for(task, small) if task.kind != "sr" else small)
            height, width = x.shape[2] * upscaler.scale, x.shape[3] * upscaler.scale
            if not (0 <= truth.shape[0] - height < upscaler.scale and 0 <= truth.shape[1] - width < upscaler.scale):
                sizes = f"{pair.large} is {truth.shape[1]}x{truth.shape[0]}, but {pair.small} enlarged x{upscaler.scale} is"
                raise ConfigError(f"{sizes} {width}x{height}; is the model of the right scale?")
            truth = truth[:height, :width]
        return measure(task, upscaler.upscale, x, truth, perceptual)
    except (ValueError, FloatingPointError) as error:
        raise ConfigError(f"{pair.large}: {error}") from error


def write_strip(spots: list[Spot], task: Task, model: str, path: Path) -> None:
    from swinir.strip import draw_strip

    try:
        draw_strip(spots, (task.baseline, model, "truth")).save(path, "PNG")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error})") from error


def mean_row(rows: Sequence[Row]) -> Row:
    from swinir.evaluation import mean_of

    return Row("mean", mean_of([row.ours for row in rows]), mean_of([row.baseline for row in rows]))


def page(name: str, rows: Sequence[Row], task: Task, upscaler: Upscaler) -> tuple[str, list[str], list[list[str]]]:
    """Title, headings and cells of a test set's table: its pictures, their mean, and what was published where that is known."""
    title = f"{name}: {upscaler.name}, {upscaler.device} {upscaler.precision}, {task}"
    scores = rows[0].ours
    units = ["PSNR dB", "SSIM", *["PSNR-B dB"] * (scores.psnr_b is not None), *["LPIPS"] * (scores.lpips is not None)]
    headings = ["image", *units, *(f"{task.baseline} {unit.removeprefix('PSNR ')}" for unit in units)]
    cells = [[row.image, *figures(row.ours), *figures(row.baseline)] for row in [*rows, mean_row(rows)]]
    known = published(name, task, upscaler)
    if known:
        columns = [figures(known.get(key) or []) for key in ("ours", "baseline")]
        cells.append(["published", *(cell for column in columns for cell in [*column, *[""] * len(units)][: len(units)])])
    return title, headings, cells


def figures(values: Sequence[float | None]) -> list[str]:
    return [f"{value:.{digits}f}" for value, digits in zip(values, (2, 4, 2, 4), strict=False) if value is not None]


def published(name: str, task: Task, upscaler: Upscaler) -> dict[str, list[float]]:
    """What the paper has for this model at this task, and what is known of bicubic, on this test set; without the unknown.

    [PSNR, SSIM], or [PSNR] alone.
    """
    from swinir.evaluation import published_scores

    if task.kind != "sr" and not upscaler.name.endswith(f"-{task.level}"):
        return {}  # not the noise or quality that it is for
    of = {"ours": upscaler.name} | ({"baseline": f"bicubic-x{task.level}"} if task.kind == "sr" else {})
    scores = {key: published_scores().get(model, {}).get(name) for key, model in of.items()}
    return {key: values for key, values in scores.items() if values}


def as_table(title: str, headings: list[str], cells: list[list[str]]) -> Table:
    table = Table(title=title)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left")
    for row in cells:
        table.add_row(*row)
    return table


def as_markdown(title: str, headings: list[str], cells: list[list[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *cells]
    return f"{title}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write_markdown(pages: Sequence[tuple[str, list[str], list[list[str]]]], path: Path) -> None:
    try:
        path.write_text("\n".join(as_markdown(*parts) for parts in pages), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error})") from error


def summary(results: list[tuple[str, list[Row]]], task: Task, upscaler: Upscaler) -> dict[str, Any]:
    """Everything as JSON values; "mean" is over all images."""
    return {
        "model": upscaler.name, "weights_sha256": upscaler.weights_sha256, "scale": upscaler.scale,
        "device": str(upscaler.device), "precision": upscaler.precision,
        "task": task.kind, "level": task.level, "grey": task.grey,
        "mean": as_json(mean_row([row for _, rows in results for row in rows]), task.baseline),
        "datasets": [
            {"dataset": name, **as_json(mean_row(rows), task.baseline), "published": published(name, task, upscaler)}
            for name, rows in results
        ],
        "images": [{"dataset": name, **as_json(row, task.baseline)} for name, rows in results for row in rows],
    }  # fmt: skip


def as_json(row: Row, baseline: str) -> dict[str, float | str | None]:
    """Rounded; null for the infinite PSNR of equal images, which JSON cannot say."""
    scores = {"": row.ours, f"{baseline}_": row.baseline}
    numbers = {f"{who}{name}": value for who, values in scores.items() for name, value in values._asdict().items()}
    known = {name: value for name, value in numbers.items() if value is not None}
    return {"image": row.image, **{name: round(v, 4) if math.isfinite(v) else None for name, v in known.items()}}
