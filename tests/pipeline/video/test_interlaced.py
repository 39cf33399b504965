"""C7 in whole jobs: interlaced video stops with advice or comes out whole and on time; soft telecine keeps its uneven times."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path

import av
import pytest

from pipeline.errors import MediaError
from pipeline.video.combing import CombMeter
from tests.media import decoded, times
from tests.pipeline.video.test_fields import write_frames

UNEVEN = [0, 2, 4, 7, 9, 11, 14, 16, 20, 22] + [24 + 2 * i for i in range(50)]


@pytest.mark.parametrize("states", [["tff"] * 60, ["prog"] * 60], ids=["stated", "not stated"])
def test_c7_the_default_is_to_stop_with_advice_that_works(tmp_path: Path, job, states: list[str]) -> None:
    source = write_frames(tmp_path / "in.mkv", ["tff"] * 60, states)
    with pytest.raises(MediaError, match=r"interlaced.*--deinterlace bwdif") as caught:
        job(source, tmp_path / "out.mp4")
    assert caught.value.exit_code == 2
    assert not (tmp_path / "out.mp4").exists()

    for choice, num_frames in (("bwdif", 60), ("bwdif-fields", 120), ("progressive", 60)):
        report = job(source, tmp_path / f"{choice}.mp4", model="identity", deinterlace=choice)
        frames = decoded(tmp_path / f"{choice}.mp4")
        assert report["frames_out"] == report["frames_processed"] == len(frames) == num_frames
        assert report["frames_in"] == 60
        assert not any(frame.interlaced_frame for frame in frames)
        meter = CombMeter()
        for frame in frames:
            meter.add(frame)
        assert bool(meter.seen.combed) == (choice == "progressive")


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1"])
def test_c7_uneven_times_are_exact_and_second_fields_in_the_middle(tmp_path: Path, job, codec: str) -> None:
    source = write_frames(tmp_path / "in.mp4", ["bff"] * 60, ["bff"] * 60, "libx264", {"x264-params": "bff=1"}, pts=UNEVEN)
    before = times(source)
    assert len({b - a for a, b in itertools.pairwise(before)}) > 2

    job(source, tmp_path / "frames.mp4", codec=codec, deinterlace="bwdif")
    job(source, tmp_path / "fields.mp4", codec=codec, deinterlace="bwdif-fields")

    assert times(tmp_path / "frames.mp4") == before
    after = times(tmp_path / "fields.mp4")
    assert after[::2] == before
    assert after[1:-1:2] == [(a + b) / 2 for a, b in itertools.pairwise(before)]


def test_c7_mixed_content_is_said_and_only_its_interlaced_part_touched(tmp_path: Path, job) -> None:
    kinds, states = ["whole"] * 30 + ["tff"] * 30, ["prog"] * 30 + ["tff"] * 30
    source = write_frames(tmp_path / "in.mkv", kinds, states)
    with pytest.raises(MediaError, match="30 of 60 frames say so"):
        job(source, tmp_path / "out.mkv")

    report = job(source, tmp_path / "out.mkv", model="identity", codec="ffv1", deinterlace="bwdif")

    assert "30 of 60 frames are interlaced; the others are taken as they are" in report["guesses"]
    same = [
        bytes(a.planes[0]) == bytes(b.planes[0]) for a, b in zip(decoded(source), decoded(tmp_path / "out.mkv"), strict=True)
    ]
    assert same == [True] * 30 + [False] * 30


def test_c7_hard_telecine_is_seen_though_most_of_its_frames_are_whole(tmp_path: Path, job) -> None:
    source = write_frames(tmp_path / "in.mkv", ["whole", "whole", "whole", "tff", "tff"] * 18, ["prog"] * 90)
    with pytest.raises(MediaError, match=r"no frame says so: \d+ of \d+ sampled frames that move are combed"):
        job(source, tmp_path / "out.mkv")
    assert job(source, tmp_path / "out.mkv", deinterlace="bwdif")["frames_out"] == 90


def test_c7_another_way_to_deinterlace_shares_no_segment(tmp_path: Path, job) -> None:
    source = write_frames(tmp_path / "in.mkv", ["tff"] * 30, ["tff"] * 30)
    plans = {job(source, tmp_path / "out.mkv", deinterlace=way)["plan"] for way in ("bwdif", "bwdif-fields", "progressive")}
    assert len(plans) == 3


def test_c7_whole_pictures_that_say_they_are_fields_are_recognised(tmp_path: Path, job) -> None:
    source = write_frames(tmp_path / "in.mkv", ["whole"] * 60, ["tff"] * 60)
    with pytest.raises(MediaError, match=r"60 of 60 frames say .* 20 of 20 are whole pictures; .* progressive takes"):
        job(source, tmp_path / "out.mkv")
    job(source, tmp_path / "out.mkv", model="identity", codec="ffv1", deinterlace="progressive")
    for before, after in zip(decoded(source), decoded(tmp_path / "out.mkv"), strict=True):
        assert bytes(before.planes[0]) == bytes(after.planes[0])
        assert not after.interlaced_frame


def test_c7_deinterlacing_progressive_video_changes_nothing(tmp_path: Path, job) -> None:
    source = write_frames(tmp_path / "in.mkv", ["whole"] * 30, ["prog"] * 30)
    report = job(source, tmp_path / "out.mkv", model="identity", codec="ffv1", deinterlace="bwdif-fields")
    assert "no frame is interlaced; --deinterlace has nothing to do" in report["guesses"]
    for before, after in zip(decoded(source), decoded(tmp_path / "out.mkv"), strict=True):
        assert bytes(before.planes[0]) == bytes(after.planes[0])


def test_c7_soft_telecine_keeps_its_frames_and_uneven_times(tmp_path: Path, job, shared: Path) -> None:
    source = shared / "data/video/telecine_soft_mpeg2_480_ac3.mkv"
    job(source, tmp_path / "out.mkv", model="identity")
    assert times(tmp_path / "out.mkv") == times(source)
    assert len(times(source)) == 240
    assert {b - a for a, b in itertools.pairwise(times(source))} >= {Fraction(50, 1000), Fraction(33, 1000)}


def test_c7_a_real_480i_video(tmp_path: Path, job, shared: Path) -> None:
    source = shared / "data/video/interlaced_tff_mpeg2_480i_ac3.mkv"
    with pytest.raises(MediaError, match="interlaced: 300 of 300 frames say so"):
        job(source, tmp_path / "out.mkv")

    report = job(source, tmp_path / "out.mp4", model="identity", deinterlace="bwdif-fields")

    assert report["segments"] > 5
    before, after = times(source), times(tmp_path / "out.mp4")
    assert len(after) == 600
    assert after[::2] == before
    assert after[1:-1:2] == [(a + b) / 2 for a, b in itertools.pairwise(before)]
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(32, 27)
        assert container.streams.video[0].average_rate == Fraction(60000, 1001)


def test_c7_a_single_frame_gives_both_its_fields(tmp_path: Path, job) -> None:
    source = write_frames(tmp_path / "in.mkv", ["tff"], ["tff"])
    job(source, tmp_path / "out.mkv", deinterlace="bwdif-fields")
    assert times(tmp_path / "out.mkv") == [0, Fraction(1, 50)]
