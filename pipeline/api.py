"""The jobs as Python functions: the same as the command line, with the report as the return value."""

from __future__ import annotations

from typing import Any

from pipeline.cluster import run_units
from pipeline.config import ImagesConfig, VideoConfig, build_config
from pipeline.dataset import job as images
from pipeline.report import PlainListener
from pipeline.video import job as video


def upscale_video(source: str, destination: str, **settings: Any) -> dict[str, Any]:  # noqa: ANN401 - pydantic checks them
    """Upscale one video; ``settings`` are the fields of pipeline.config.VideoConfig. Returns the report.

    Raises ConfigError, MediaError, OutputError or InterruptedRunError (pipeline.errors).
    """
    return video.upscale_video(source, destination, build_config(VideoConfig, None, settings), run_units, PlainListener())


def upscale_images(source: str, destination: str, **settings: Any) -> dict[str, Any]:  # noqa: ANN401
    """Upscale an archive of images; ``settings`` are the fields of pipeline.config.ImagesConfig. Returns the report.

    Raises ConfigError, MediaError, OutputError or InterruptedRunError (pipeline.errors).
    """
    return images.upscale_images(
        source, destination, build_config(ImagesConfig, None, settings), run_units, PlainListener("images")
    )
