"""Any size that people ask for: by a factor, a height or a box, square or not, upright or on its side."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import VideoConfig, build_config
from pipeline.errors import ConfigError
from pipeline.video.size import OutputSize, output_size
from swinir.resize import resample
from swinir.upscaler import Upscaler
from tests.media import decoded, luma, times, write_video

NTSC_WIDE, PAL_WIDE = "32/27", "64/45"


@pytest.mark.parametrize(
    ("source", "settings", "expected"),
    [
        ((640, 360, None), {}, (1280, 720, None)),
        ((640, 360, "1"), {"scale": 1.5}, (960, 540, "1")),
        ((640, 360, None), {"height": 2160}, (3840, 2160, None)),
        ((640, 360, None), {"fit": "3840x2160"}, (3840, 2160, None)),
        ((640, 480, None), {"fit": "3840x2160"}, (2880, 2160, None)),
        ((1920, 800, None), {"fit": "3840x2160"}, (3840, 1600, None)),
        ((720, 576, PAL_WIDE), {}, (1440, 1152, PAL_WIDE)),
        ((720, 576, PAL_WIDE), {"scale": 1.5}, (1080, 864, PAL_WIDE)),
        ((720, 576, PAL_WIDE), {"height": 2160}, (3840, 2160, "1")),
        ((720, 480, NTSC_WIDE), {"fit": "3840x2160"}, (3840, 2160, "1")),
        ((720, 480, "8/9"), {"fit": "3840x2160"}, (2880, 2160, "1")),
        ((853, 479, None), {"scale": 1.5}, (1280, 718, None)),
        ((853, 479, None), {"scale": 1.5, "codec": "ffv1"}, (1280, 719, None)),
        ((96, 64, None), {"fit": "101x77", "codec": "png"}, (101, 67, None)),
        ((64, 48, None), {"fit": "101x77"}, (100, 76, None)),
    ],
)
def test_sizes_people_ask_for(source, settings, expected) -> None:
    assert output_size(OutputSize(*source), 2, VideoConfig(**settings), False, []) == expected


def test_a_picture_on_its_side_is_measured_as_it_is_shown() -> None:
    assert output_size(OutputSize(1280, 720, None), 2, VideoConfig(height=1920), True, []) == (1920, 1080, None)
    assert output_size(OutputSize(1280, 720, None), 2, VideoConfig(fit="3840x2160"), True, []) == (2160, 1216, None)


@given(*[st.integers(16, 2000)] * 4, st.booleans())
def test_a_picture_fits_into_its_box(width, height, box_width, box_height, turned) -> None:
    config = VideoConfig(fit=f"{box_width}x{box_height}")
    size = output_size(OutputSize(width, height, None), 2, config, turned, [])
    shown = (size.height, size.width) if turned else (size.width, size.height)
    assert shown[0] <= box_width
    assert shown[1] <= box_height


@pytest.mark.parametrize("turned", [False, True])
def test_an_odd_height_is_said(turned: bool) -> None:
    guesses: list[str] = []
    output_size(OutputSize(64, 48, None), 4, VideoConfig(height=97, codec="ffv1"), turned, guesses)
    assert guesses == []
    output_size(OutputSize(64, 48, None), 4, VideoConfig(height=97), turned, guesses)
    assert "a height of 97 is odd" in guesses[0]
    assert guesses[0].endswith("it is 98")


def test_more_than_the_model_gives_is_said() -> None:
    said: list[str] = []
    output_size(OutputSize(640, 360, None), 2, VideoConfig(scale=3), False, said)
    assert len(said) == 1
    assert "1920x1080 is more than the model's 1280x720" in said[0]


@given(st.integers(16, 4000), st.integers(16, 4000), st.fractions(Fraction(1, 3), 3, max_denominator=99), st.integers(16, 4000))
def test_the_shape_of_the_picture_survives_to_a_pixel_or_two(width, height, shape, asked) -> None:
    size = output_size(OutputSize(width, height, str(shape)), 2, VideoConfig(height=asked), False, [])
    assert abs(size.height - asked) <= 1
    assert size.width == 2 or abs(size.width - width * shape * asked / height) <= 1
    assert size.sample_aspect_ratio == "1"


def test_sizes_exclude_one_another_and_are_checked() -> None:
    with pytest.raises(ConfigError, match="scale, height and fit exclude one another"):
        build_config(VideoConfig, None, {"scale": 2, "height": 1080})
    for wrong in ({"fit": "4k"}, {"fit": "0x100"}, {"scale": 0}, {"height": 1}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            build_config(VideoConfig, None, wrong)


def test_a_job_gives_the_size_asked_for_by_one_resample_of_the_model_s_floats(tmp_path: Path, job) -> None:
    source = write_video(tmp_path / "in.mkv", 5, codec="ffv1", pix_fmt="gray")
    report = job(source, tmp_path / "out.mkv", model="bicubic-x2", codec="ffv1", scale=1.5)
    assert (report["width"], report["height"]) == (96, 72)
    assert times(tmp_path / "out.mkv") == times(source)
    up = Upscaler("bicubic-x2")
    for before, after in zip(decoded(source), decoded(tmp_path / "out.mkv"), strict=True):
        x = (torch.from_numpy(luma(before).astype(np.float32)) - 16) / 219
        exact = resample(up.upscale(x[None, None])[0, 0], 72, 96) * 219 + 16
        assert np.array_equal(luma(after), exact.round().clamp(0, 255).numpy().astype(np.uint8))


def test_a_result_in_square_pixels_says_so(tmp_path: Path, job) -> None:
    source = write_video(tmp_path / "in.mp4", 3)
    anamorphic = tmp_path / "wide.mp4"
    with av.open(str(source)) as old, av.open(str(anamorphic), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0], opaque=True)
        stream.sample_aspect_ratio = Fraction(3, 2)
        for packet in old.demux():
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    job(anamorphic, tmp_path / "out.mp4", height=96)
    with av.open(str(tmp_path / "out.mp4")) as result:
        video = result.streams.video[0]
        assert (video.width, video.height, video.sample_aspect_ratio) == (192, 96, 1)
