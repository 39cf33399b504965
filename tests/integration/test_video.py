"""The video job on real Ray: any number of workers, with deaths or without, gives the same bytes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pipeline import cluster, local
from pipeline import upscale_video as from_package
from pipeline.config import VideoConfig
from pipeline.report import PlainListener
from pipeline.video.job import upscale_video
from tests.media import numbers, write_video

pytestmark = pytest.mark.usefixtures("ray_session")


def upscale(source: Path, destination: Path, run_units: Any = cluster.run_units, **settings: Any) -> dict[str, Any]:
    config = VideoConfig(model="nearest-x2", preset="ultrafast", segment_seconds=1, **settings)
    return upscale_video(str(source), str(destination), config, run_units, PlainListener())


def test_b3_one_process_two_cpu_workers_and_two_gpu_workers_give_the_same_bytes(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", 150, options={"g": "12", "bf": "3"}, with_audio=True)

    upscale(source, tmp_path / "here.mp4", local.run_units)
    upscale(source, tmp_path / "cpu.mp4", device="cpu", workers=2)
    upscale(source, tmp_path / "gpu.mp4")  # two pretended GPUs: an actor each, which finds no CUDA and takes the CPU

    here = (tmp_path / "here.mp4").read_bytes()
    assert (tmp_path / "cpu.mp4").read_bytes() == here
    assert (tmp_path / "gpu.mp4").read_bytes() == here
    assert numbers(tmp_path / "here.mp4", scale=2) == list(range(150))


def test_the_function_of_the_package_is_the_same_job(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", 10)
    report = from_package(os.fsencode(source), tmp_path / "out.mkv", model="nearest-x3", preset="ultrafast")
    assert (report["width"], report["height"], report["frames_out"]) == (192, 144, 10)
