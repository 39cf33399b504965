"""Run whole video jobs in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import local
from pipeline.config import VideoConfig
from pipeline.video.job import upscale_video


class Listening:
    """Remembers what a job says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def phase(self, name: str, total: int | None) -> None:
        pass

    def frames(self, count: int) -> None:
        pass

    def event(self, event: object) -> None:
        pass

    def note(self, line: str) -> None:
        self.lines.append(line)

    def warn(self, line: str) -> None:
        self.lines.append(line)


Job = Callable[..., dict[str, Any]]


@pytest.fixture
def job() -> Job:
    """A video job with nearest-x2 and a fast encoder, unless told otherwise."""

    def run(source: Path | str, destination: Path | str, run_units: Any = local.run_units, **settings: Any) -> dict[str, Any]:
        preset = {"libsvtav1": "12", "ffv1": None}.get(settings.get("codec", ""), "ultrafast")
        config = VideoConfig(**{"model": "nearest-x2", "preset": preset, "segment_seconds": 1, **settings})
        return upscale_video(str(source), str(destination), config, run_units, Listening())

    return run
