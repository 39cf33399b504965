"""Upscale an archive of images.

swinir images photos/ enhanced/
swinir images s3://bucket/raw/ s3://bucket/x2/ --output parquet --address auto
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

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
from pipeline.config import ImagesConfig, build_config

Option = typer.Option


def images(
    source: Annotated[str, typer.Argument(help="A folder, glob, tar or Parquet files, or a list of URLs; local or by URL.")],
    destination: Annotated[str, typer.Argument(help="The folder for results and index; local or s3://, gs://, az://.")],
    model: Model = None,
    weights: Weights = None,
    strength: Strength = None,
    weights_fidelity: WeightsFidelity = None,
    ensemble: Ensemble = None,
    output: Annotated[str | None, Option(help="files (the tree mirrored), parquet or webdataset. [default: files]")] = None,
    format: Annotated[str | None, Option(help="same, png, jpeg or webp. [default: same]")] = None,
    png_level: Annotated[int | None, Option(help="Compression of PNG, 0 to 9. [default: 3]")] = None,
    quality: Annotated[int | None, Option(help="Of JPEG and WebP. [default: 95]")] = None,
    subsampling: Annotated[str | None, Option(help="Of JPEG: 444, 422 or 420. [default: 444]")] = None,
    scale: Annotated[float | None, Option(help="How many times larger. [default: the model's scale]")] = None,
    target_long_side: Annotated[int | None, Option(help="Pixels of the longer side of each result.")] = None,
    min_side: Annotated[int | None, Option(help="Skip pictures whose shorter side is at least this.")] = None,
    max_pixels: Annotated[int | None, Option(help="Skip pictures of more pixels than this.")] = None,
    bomb_pixels: Annotated[int | None, Option(help="Do not even decode pictures of more pixels. [default: 2**29]")] = None,
    animated: Annotated[str | None, Option(help="each frame, the first, or refuse. [default: refuse]")] = None,
    image_column: Annotated[str | None, Option(help="The column of Parquet sources that holds the pictures.")] = None,
    url_column: Annotated[str | None, Option(help="The column of a Parquet source that holds their URLs.")] = None,
    shard_rows: Annotated[int | None, Option(help="Pictures in a unit of work, on average. [default: 256]")] = None,
    retry_failed: Annotated[bool | None, Option("--retry-failed", help="Try again what failed in an earlier run.")] = None,
    workers: Workers = None,
    device: Device = None,
    precision: Precision = None,
    tile: Tile = None,
    address: Address = None,
    fresh: Fresh = None,
    overwrite: Overwrite = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Say how much there is to do, and stop.")] = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Upscale an archive of images into a tree or a dataset, with an index row for every input."""
    options = {key: value for key, value in locals().items() if key in ImagesConfig.model_fields}
    settings = build_config(ImagesConfig, config, options)
    # Torch and Ray load only once the settings are known to be right.
    from pipeline.report import listener_for

    with listener_for(as_json, "images") as listener:
        if dry_run:
            from pipeline.dataset.preview import preview_images

            tell_plan(preview_images(source, destination, settings, listener), as_json)
            return
        from pipeline.cluster import run_units
        from pipeline.dataset.job import upscale_images

        report = upscale_images(source, destination, settings, run_units, listener)
    tell(report, as_json)
    if report["exit_code"]:
        raise typer.Exit(report["exit_code"])


def tell_plan(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
        return
    left = f"{found['images_left']} of {found['images']} images ({found['shards_left']} of {found['shards']} shards)"
    print(f"{found['destination']}: {left} to be done by {found['model']}; nothing was written")


def tell(report: dict[str, Any], as_json: bool) -> None:
    """The report as one JSON line, or in two sentences, the counts last."""
    if as_json:
        print(json.dumps(report, ensure_ascii=False))
        return
    counts = ", ".join(f"{status} {count}" for status, count in report["counts"].items())
    known = f", {report['images_known']} taken over," if report["images_known"] else ""
    print(f"{report['destination']}: {report['images_processed']} images processed{known} in {report['seconds']:.1f} s")
    print(f"{report['images']} images: {counts}")
