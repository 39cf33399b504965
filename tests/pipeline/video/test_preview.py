"""What --preview shows is what the job then makes: turned, deinterlaced and resampled alike."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.config import VideoConfig
from pipeline.errors import ConfigError, MediaError
from pipeline.video.preview import plan_only, write_preview
from tests.media import write_video
from tests.pipeline.video.conftest import Listening
from tests.pipeline.video.test_fields import write_frames
from tests.pipeline.video.test_geometry import matrix_of, write_turned
from tests.pipeline.video.test_sequences import write_images

ON_ITS_SIDE = matrix_of((0, 1, -1, 0))


def previewed(source: Path, destination: Path | str, num_frames: int = 1, **settings: Any) -> np.ndarray:
    config = VideoConfig(**{"model": "nearest-x2", **settings})
    job = plan_only(str(source), str(destination), config, Listening())
    with Image.open(write_preview(job, num_frames)["preview"]) as picture:
        return np.asarray(picture)


@pytest.mark.parametrize("ending", [".mp4", ".mkv", "/"], ids=["matrix", "quarter turn", "turned pixels"])
def test_g2_a_turned_video_is_previewed_upright(tmp_path: Path, ending: str) -> None:
    source = write_turned(tmp_path / "in.mp4", ON_ITS_SIDE, Fraction(4, 3), num_frames=3)
    shown = previewed(source, f"{tmp_path}/out{ending}", model="lightweight-x2", height=300)
    assert shown.shape == (300, 2 * 150, 3)


def test_g2_the_right_half_is_what_the_job_makes(tmp_path: Path, job) -> None:
    source = write_turned(tmp_path / "in.mp4", ON_ITS_SIDE, num_frames=3)
    shown = previewed(source, f"{tmp_path}/out/", scale=1.5)
    job(source, f"{tmp_path}/out/", scale=1.5, preset=None)
    with Image.open(tmp_path / "out/000002.png") as made:
        assert np.array_equal(shown[:, shown.shape[1] // 2 :], np.asarray(made))


def test_g2_a_second_field_is_previewed_as_the_job_makes_it(tmp_path: Path, job) -> None:
    source = write_frames(tmp_path / "in.mkv", ["tff"] * 5, ["tff"] * 5)
    shown = previewed(source, f"{tmp_path}/out/", 8, deinterlace="bwdif-fields")
    job(source, f"{tmp_path}/out/", deinterlace="bwdif-fields", preset=None)
    made = [np.asarray(Image.open(tmp_path / f"out/{number:06d}.png")) for number in range(2, 10)]
    assert np.array_equal(shown[:, shown.shape[1] // 2 :], np.concatenate(made))


def test_a_preview_tells_how_long_all_would_take(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mkv", 3)
    job = plan_only(str(source), str(tmp_path / "out.mkv"), VideoConfig(model="nearest-x2", device="cpu"), Listening())
    assert re.fullmatch(r"about 0:00:0\d on this machine's cpu, [\d.e-]+ s a frame", write_preview(job, 2)["time_needed"])


def test_a_preview_replaces_a_preview_and_nothing_else(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mkv", 3)
    for _ in range(2):
        previewed(source, tmp_path / "out.mkv")
    picture = tmp_path / "out.preview.png"
    Image.new("L", (2, 2)).save(picture)
    before = picture.read_bytes()
    with pytest.raises(ConfigError, match=r"out\.preview\.png is no preview of this program"):
        previewed(source, tmp_path / "out.mkv")
    assert picture.read_bytes() == before
    previewed(source, tmp_path / "out.mkv", overwrite=True)


def test_a_damaged_source_is_previewed_only_where_the_job_would_go_on(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", 40, codec="libx264")
    data = bytearray(source.read_bytes())
    middle = data.index(b"mdat") + 2000
    data[middle : middle + 200] = bytes(200)
    source.write_bytes(data)
    with pytest.raises(MediaError, match="--on-decode-error repeat goes on"):
        previewed(source, tmp_path / "out.mkv")
    previewed(source, tmp_path / "out.mkv", on_decode_error="repeat")


def test_a_preview_for_a_cluster_needs_the_device_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    source = write_video(tmp_path / "in.mkv", 3)
    with pytest.raises(ConfigError, match="sees no CUDA device; use cpu or auto"):
        previewed(source, tmp_path / "out.mkv", address="auto", device="cuda")
    assert previewed(source, tmp_path / "out.mkv", address="auto").shape == (96, 256, 3)


def test_g2_a_preview_never_joins_the_images_of_its_source(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", 4)
    with pytest.raises(ConfigError, match="among the images of the source"):
        previewed(folder, folder / "out.mp4")
    assert len(list(folder.iterdir())) == 4
    assert previewed(folder, tmp_path / "out.mp4", 2).shape == (2 * 96, 2 * 128, 3)
