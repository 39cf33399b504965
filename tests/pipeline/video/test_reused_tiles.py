"""--reuse: what is as in the frame before costs nothing and changes nothing."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.config import VideoConfig
from tests.media import numbered_frame, write_video


def screen_recording(path: Path, num_frames: int = 6) -> Path:
    """A still desktop of 96x64 with a counter in the corner that stands still in every third frame."""
    pictures = [numbered_frame(0, 96, 64) for _ in range(num_frames)]
    for number, picture in enumerate(pictures):
        picture[48:, 80:] = 40 + 20 * (number - number // 3)
    return write_video(path, num_frames, codec="ffv1", pix_fmt="yuv444p", size=(96, 64), pictures=pictures)


def planes(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as media:
        return [frame.to_ndarray() for frame in media.decode(video=0)]


NETWORK = {"model": "lightweight-x2", "precision": "fp32", "tile": 32, "codec": "ffv1"}


def test_exact_reuse_gives_the_same_bytes_and_computes_less(tmp_path, job):
    source = screen_recording(tmp_path / "in.mkv")
    exact, off = (job(source, tmp_path / f"{reuse}.mkv", reuse=reuse, **NETWORK) for reuse in ("exact", "off"))
    assert (tmp_path / "exact.mkv").read_bytes() == (tmp_path / "off.mkv").read_bytes()
    assert exact["tiles_reused"] > 0 == off["tiles_reused"]
    assert len(planes(tmp_path / "exact.mkv")) == 6


def test_near_reuse_is_another_result(tmp_path, job):
    source = screen_recording(tmp_path / "in.mkv")
    job(source, tmp_path / "out.mkv", **NETWORK)
    before = planes(tmp_path / "out.mkv")
    near = job(source, tmp_path / "out.mkv", reuse="near:255", **NETWORK)
    assert near["tiles_reused"] > 0
    after = planes(tmp_path / "out.mkv")
    assert np.array_equal(after[0], before[0])
    assert all(np.array_equal(frame, after[0]) for frame in after)
    assert not np.array_equal(after[-1], before[-1])


@pytest.mark.parametrize(("text", "within"), [("exact", 0.0), ("off", None), ("near:2.5", 2.5)])
def test_how_far_tiles_may_differ(text, within):
    assert VideoConfig(reuse=text).reuse_within == within


@pytest.mark.parametrize("text", ["near", "near:-1", "near:x", "on"])
def test_other_words_are_refused(text):
    with pytest.raises(ValidationError, match="reuse"):
        VideoConfig(reuse=text)
