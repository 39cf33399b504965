"""Where a video is cut and how it is encoded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.config import VideoConfig
from pipeline.errors import ConfigError, MediaError
from pipeline.video.colours import nearest_format
from pipeline.video.info import VideoInfo
from pipeline.video.plan import plan_video
from pipeline.video.timeline import Timeline
from swinir.colour import PlaneLayout


def an_info(**changes: object) -> VideoInfo:
    plain = VideoInfo(
        container="matroska,webm", stream=0, codec="h264", width=640, height=480, pix_fmt="yuv420p", time_base="1/1000",
        rate="25", sample_aspect_ratio=None, display_matrix=None, color_range=0, color_space=2, color_primaries=2, color_trc=2,
        num_frames=200, duration_s=8.0,
    )  # fmt: skip
    return replace(plain, **changes)


def a_timeline(num_frames: int = 200) -> Timeline:
    index = np.arange(num_frames)
    return Timeline(
        index * 40, np.full(num_frames, 40), index.astype(np.uint32), index % 50 == 0, index < 0, index < 0, index * 40
    )


@pytest.mark.parametrize(
    ("codec", "source", "wanted"),
    [
        ("libx264", PlaneLayout("yuv", 8, 1, 1), "yuv420p"),
        ("libx264", PlaneLayout("yuv", 10, 1, 1), "yuv420p10le"),
        ("libx264", PlaneLayout("yuv", 8, 1, 0), "yuv422p"),
        ("libx264", PlaneLayout("gray", 8), "gray"),
        ("libx265", PlaneLayout("yuv", 12, 0, 0), "yuv444p12le"),
        ("libsvtav1", PlaneLayout("yuv", 10, 1, 1), "yuv420p10le"),
        ("ffv1", PlaneLayout("rgb", 8), "bgr0"),
        ("libx264", PlaneLayout("rgb", 8), "yuv444p"),
        ("libx264", PlaneLayout("yuv", 8, 2, 0), "yuv422p"),
    ],
)
def test_depth_and_chroma_are_kept(codec: str, source: PlaneLayout, wanted: str) -> None:
    guesses: list[str] = []
    assert nearest_format(codec, source, guesses) == wanted
    assert not guesses


def test_what_a_codec_cannot_hold_is_said() -> None:
    guesses: list[str] = []
    assert nearest_format("libsvtav1", PlaneLayout("yuv", 8, 0, 0), guesses) == "yuv420p"
    assert "cannot hold" in guesses[0]


def test_untagged_video_that_grows_into_hd_is_tagged_as_what_it_was() -> None:
    plan = plan_video(an_info(), a_timeline(), 2, VideoConfig(), global_header=True)
    assert plan.source_layout.matrix == plan.target_layout.matrix == "smpte170m"
    assert plan.encode.color_space == 6
    assert any("tagged" in guess for guess in plan.guesses)


def test_untagged_video_that_stays_small_stays_untagged() -> None:
    plan = plan_video(an_info(width=160, height=120), a_timeline(), 2, VideoConfig(), global_header=True)
    assert plan.encode.color_space == 2


def test_tags_go_out_as_they_came_in() -> None:
    info = an_info(
        color_range=1, color_space=9, color_primaries=9, color_trc=16, pix_fmt="yuv420p10le", sample_aspect_ratio="4/3"
    )
    encode = plan_video(info, a_timeline(), 2, VideoConfig(codec="libx265"), global_header=True).encode
    assert (encode.color_range, encode.color_space, encode.color_primaries, encode.color_trc) == (1, 9, 9, 16)
    assert (encode.pix_fmt, encode.sample_aspect_ratio) == ("yuv420p10le", "4/3")


def test_full_range_jpeg_formats_become_tagged_full_range() -> None:
    plan = plan_video(an_info(pix_fmt="yuvj420p"), a_timeline(), 2, VideoConfig(), global_header=True)
    assert plan.encode.color_range == 2
    assert plan.target_layout.full_range


def test_an_odd_size_that_the_codec_cannot_encode_is_refused_with_a_way_out() -> None:
    with pytest.raises(ConfigError, match="161x121 as yuv420p; use --codec ffv1"):
        plan_video(an_info(width=161, height=121), a_timeline(), 1, VideoConfig(), global_header=True)


def test_an_unknown_matrix_is_refused() -> None:
    with pytest.raises(MediaError, match="colour matrix 14"):
        plan_video(an_info(color_space=14), a_timeline(), 2, VideoConfig(), global_header=True)


def test_units_of_another_configuration_have_other_ids() -> None:
    plans = [plan_video(an_info(), a_timeline(), 2, VideoConfig(crf=crf), global_header=True) for crf in (16, 17)]
    first, second = ({u.id for u in plan.units(plan.identity({"url": "a"}, {"name": "m"}))} for plan in plans)
    assert len(first) == len(plans[0].segments)
    assert not first & second
