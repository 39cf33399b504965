"""The jobs as Python functions: the same as the command line, with the report as the return value."""

from __future__ import annotations

from typing import Any

from pipeline.cluster import run_units
from pipeline.config import build_config
from pipeline.report import PlainListener
from pipeline.video import job


def upscale_video(source: str, destination: str, **settings: Any) -> dict[str, Any]:  # noqa: ANN401 - pydantic checks them
    """Upscale one video; ``settings`` are the fields of pipeline.config.VideoConfig. Returns the report.

    Raises ConfigError, MediaError, OutputError or InterruptedRunError (pipeline.errors).
    """
    return job.upscale_video(source, destination, build_config(None, settings), run_units, PlainListener())
