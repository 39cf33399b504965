"""An image job, as a function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline import local
from pipeline.config import ImagesConfig
from pipeline.dataset.job import upscale_images
from tests.pipeline.dataset.archives import Run
from tests.pipeline.video.conftest import Listening


@pytest.fixture
def images() -> Run:
    """An image job with nearest-x2, unless told otherwise."""

    def run(source: Path | str, destination: Path | str, run_units: Any = local.run_units, **settings: Any) -> dict[str, Any]:
        config = ImagesConfig(**{"model": "nearest-x2", **settings})
        return upscale_images(str(source), str(destination), config, run_units, Listening())

    return run
