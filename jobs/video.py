"""Upscale one video.

swinir video in.mkv out.mkv
swinir video s3://bucket/in.mp4 s3://bucket/out.mp4 --codec libx265 --crf 16 --address auto
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from jobs.options import (
    Address,
    AsJson,
    ConfigFile,
    Device,
    Ensemble,
    Fresh,
    Model,
    Overwrite,
    Precision,
    Strength,
    Tile,
    Weights,
    WeightsFidelity,
    Workers,
)
from pipeline.config import VideoConfig, build_config
from pipeline.errors import ConfigError, OutputError
from pipeline.folders import publishing
from pipeline.storage import local_path
from pipeline.units import as_json

Option = typer.Option
MOST_REPORT_BYTES = 64 << 20


def video(
    source: Annotated[
        str, typer.Argument(help="A video, a folder of images or a pattern such as frames/%06d.png: a path or URL.")
    ],
    destination: Annotated[
        str, typer.Argument(help="Where the result goes; the ending chooses the container, name/ or name%06d.png images.")
    ],
    model: Model = None,
    weights: Weights = None,
    strength: Strength = None,
    weights_fidelity: WeightsFidelity = None,
    ensemble: Ensemble = None,
    codec: Annotated[str | None, Option(help="libx264, libx265, libsvtav1 or ffv1 (lossless). [default: libx264]")] = None,
    crf: Annotated[float | None, Option(help="Quality, smaller is better. [default: 16, 18, 24 by codec]")] = None,
    preset: Annotated[str | None, Option(help="The encoder's speed preset.")] = None,
    pix_fmt: Annotated[str | None, Option(help="Pixel format. [default: the source's]")] = None,
    scale: Annotated[float | None, Option(help="How many times larger, 1.5 for example. [default: the model's scale]")] = None,
    height: Annotated[int | None, Option(help="Height of the result in square pixels, 2160 for example.")] = None,
    fit: Annotated[str | None, Option(help="The box to fill, in square pixels, 3840x2160 for example.")] = None,
    segment_seconds: Annotated[float | None, Option(help="Video in a unit of work; 24 frames or more. [default: 250]")] = None,
    stream: Annotated[int | None, Option(help="Index of the video stream, where there are several.")] = None,
    rate: Annotated[str | None, Option(help="Frames a second of an image sequence. [default: its times.csv, or 25]")] = None,
    deinterlace: Annotated[
        str | None,
        Option(
            help="bwdif (a picture of each frame), bwdif-fields (of each field, at twice the rate) or progressive (frames "
            "as they are). [default: stop at interlaced video]"
        ),
    ] = None,
    on_decode_error: Annotated[str | None, Option(help="fail, or repair by repeating, and list it. [default: fail]")] = None,
    reuse: Annotated[
        str | None,
        Option(help="Of parts that are as in the frame before: exact, off, or near:T, within T codes. [default: exact]"),
    ] = None,
    convert_subtitles: Annotated[
        bool | None, Option("--convert-subtitles", help="Convert text subtitles that the container cannot hold; styles may go.")
    ] = None,
    drop_incompatible: Annotated[
        bool | None, Option("--drop-incompatible", help="Drop what the container cannot hold.")
    ] = None,
    workers: Workers = None,
    device: Device = None,
    precision: Precision = None,
    tile: Tile = None,
    address: Address = None,
    fresh: Fresh = None,
    overwrite: Overwrite = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Show the plan and stop.")] = False,
    preview: Annotated[int, Option(help="Upscale N frames into a before/after picture and stop.", min=0)] = 0,
    as_json: AsJson = False,
    config: ConfigFile = None,
    report: Annotated[Path | None, Option(help="Write the report here too.")] = None,
) -> None:
    """Upscale a video: every frame, its exact time, every other stream."""
    options = {key: value for key, value in locals().items() if key in VideoConfig.model_fields}
    settings = build_config(VideoConfig, config, options)
    if report:
        check_report(report, source, destination)
    # Torch, FFmpeg and Ray load only once the settings are known to be right.
    from pipeline.report import listener_for

    with listener_for(as_json) as listener:
        if dry_run and preview:
            raise ConfigError("--dry-run writes nothing and --preview a picture; give one of them")
        if dry_run or preview:
            from pipeline.video.prepare import describe_plan
            from pipeline.video.preview import plan_only, write_preview

            job = plan_only(source, destination, settings, listener)
            result = write_preview(job, preview) if preview else describe_plan(job)
        else:
            from pipeline.cluster import run_units
            from pipeline.video.job import upscale_video

            result = upscale_video(source, destination, settings, run_units, listener)
    if report:
        write_report(result, report)
    tell(result, as_json)
    if result.get("exit_code"):
        raise typer.Exit(result["exit_code"])


def check_report(report: Path, source: str, destination: str) -> None:
    """ConfigError where the report cannot be written, or would take the place of anything else than a report."""
    if report.is_dir() or not report.absolute().parent.is_dir():
        raise ConfigError(f"--report {report} must name a file in a folder that exists")
    places = [path for path in map(local_path, (source, destination)) if path]
    if report.resolve() in [Path(place).resolve() for place in places]:
        raise ConfigError(f"--report {report} is the source or the destination; name another file")
    if report.is_file() and not is_report(report):
        raise ConfigError(f"--report {report} is there and is no report; name another file, or remove it")


def is_report(path: Path) -> bool:
    """Whether a file holds one, or nothing."""
    try:
        size = path.stat().st_size
        return not size or (size < MOST_REPORT_BYTES and "source" in json.loads(path.read_bytes()))
    except (ValueError, TypeError, OSError):
        return False


def write_report(result: dict[str, Any], path: Path) -> None:
    """Whole or not at all, but to a device or pipe. OutputError where it cannot be written."""
    text = as_json(result)
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(text)
            return
        with publishing(path) as part:
            part.write_bytes(text)
    except OSError as error:
        raise OutputError(f"--report {path} cannot be written: {error.strerror or error}; name another file") from error


def tell(result: dict[str, Any], as_json: bool) -> None:
    """The result as one JSON line, or what of it a person wants to see."""
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
        return
    table = Table(show_header=False, box=None)
    told = ("destination", "frames", "frames_out", "frames_repaired", "frames_processed", "duration_s", "size", "model", "tile",
            "encoder", "segments", "segments_reused", "seconds", "fps", "disk_needed_mib", "disk_free_mib", "streams",
            "guesses", "warnings", "time_needed", "preview")  # fmt: skip
    for key in told:
        value = result.get(key)
        if key == "streams" and value and isinstance(value[0], dict):
            value = [f"{s['index']} {s['type']} {s['codec']}: {s['action']} {s['reason']}".strip() for s in value]
        if value not in (None, [], ()):
            table.add_row(key.replace("_", " "), "\n".join(map(str, value)) if isinstance(value, list) else str(value))
    Console(markup=False).print(table)
