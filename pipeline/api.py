"""The jobs as Python functions: the same as the command line, with the report as the return value.

Ray starts and ends with a call, unless the process has called ``ray.init`` before, which saves that where many calls follow;
then ``address`` is not looked at.
From several threads, calls that start Ray wait for one another.
"""

from __future__ import annotations

import os
from typing import Any

from pipeline.cluster import run_units
from pipeline.config import ImagesConfig, VideoConfig, build_config
from pipeline.dataset import job as images
from pipeline.report import PlainListener
from pipeline.video import job as video

Place = str | bytes | os.PathLike[str] | os.PathLike[bytes]  # a path or a URL


def upscale_video(source: Place, destination: Place, **settings: Any) -> dict[str, Any]:  # noqa: ANN401 - pydantic checks them
    """Upscale one video; ``settings`` are the fields of pipeline.config.VideoConfig. Returns the report.

    Its ``exit_code`` is the command's: 0, or 3 where the source is damaged or packets were left out.
    Raises ConfigError, MediaError, OutputError or InterruptedRunError (pipeline.errors).
    """
    config = build_config(VideoConfig, None, settings)
    return video.upscale_video(os.fsdecode(source), os.fsdecode(destination), config, run_units, PlainListener())


def upscale_images(source: Place, destination: Place, **settings: Any) -> dict[str, Any]:  # noqa: ANN401
    """Upscale an archive of images; ``settings`` are the fields of pipeline.config.ImagesConfig. Returns the report.

    Its ``exit_code`` is the command's: 0, or 3 where some pictures have an error.
    Raises ConfigError, MediaError, OutputError or InterruptedRunError (pipeline.errors).
    """
    config = build_config(ImagesConfig, None, settings)
    return images.upscale_images(os.fsdecode(source), os.fsdecode(destination), config, run_units, PlainListener("images"))
