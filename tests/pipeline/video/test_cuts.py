"""Where videos are cut: every frame once, at scenes where there are some, and at no cost in size."""

from __future__ import annotations

import itertools
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.video.cuts import MIN_SEGMENT_FRAMES, plan_segments
from pipeline.video.scenes import SceneMeter, scene_starts
from tests.media import decoded, luma, numbered_frame, write_video


@given(
    num_frames=st.integers(1, 2000),
    longest=st.integers(1, 300),
    scenes=st.lists(st.integers(0, 1999), max_size=30, unique=True).map(sorted),
    keys=st.lists(st.integers(0, 1999), max_size=60, unique=True).map(sorted),
    barred=st.sets(st.integers(1, 1999), max_size=20),
)
def test_segments_cover_every_frame_once_and_are_never_too_short_or_long(num_frames, longest, scenes, keys, barred) -> None:
    may_start = [frame not in barred for frame in range(num_frames)]
    inside = [[frame for frame in frames if frame < num_frames] for frames in (scenes, keys)]
    segments = plan_segments(num_frames, *inside, longest, may_start)

    assert segments[0][0] == 0
    assert segments[-1][1] == num_frames
    assert all(a[1] == b[0] for a, b in itertools.pairwise(segments))
    assert all(may_start[start] for start, _ in segments)
    lengths = [stop - start for start, stop in segments]
    assert min(lengths) >= min(num_frames, MIN_SEGMENT_FRAMES)
    assert max(lengths) <= max(longest, MIN_SEGMENT_FRAMES) + MIN_SEGMENT_FRAMES + len(barred)


def test_a_cut_is_at_the_last_scene_then_the_last_key_frame_then_the_end_of_what_is_allowed() -> None:
    free = [True] * 1000
    assert plan_segments(300, [60, 140, 180], [100, 190], 200, free) == [(0, 180), (180, 300)]
    assert plan_segments(300, [60], [100, 190], 200, free) == [(0, 60), (60, 190), (190, 300)]
    assert plan_segments(300, [40], [100, 190], 200, free) == [(0, 190), (190, 300)]
    assert plan_segments(300, [40], [90], 200, free) == [(0, 200), (200, 300)]
    assert [stop - start for start, stop in plan_segments(1000, [], [0], 100, free)] == [100] * 10


def test_what_fits_into_one_segment_is_not_cut() -> None:
    assert plan_segments(250, [100, 200], [50], 250, [True] * 250) == [(0, 250)]


def shown(numbers: list[int], pix_fmt: str) -> list[bool]:
    meter, change = SceneMeter(), []
    for number in numbers:
        picture = numbered_frame(number, 64, 48) // (1 if number < 100 else 3)
        change.append(meter.change(av.VideoFrame.from_ndarray(picture, "gray").reformat(format=pix_fmt)))
    return scene_starts(change).tolist()


@pytest.mark.parametrize("pix_fmt", ["gray", "yuv420p", "yuv444p10le", "rgb24", "gbrp12le"])
def test_a_scene_starts_where_much_changes_at_once(pix_fmt: str) -> None:
    starts = shown([1, 2, 3, 4, 5, 101, 102, 103, 104, 1, 2, 3, 4], pix_fmt)
    assert [i for i, start in enumerate(starts) if start] == [5, 9]


def test_a_flash_and_a_fast_pan_start_no_scene() -> None:
    assert not any(shown([1, 2, 3, 101, 4, 5, 6], "gray"))
    assert not any(scene_starts([20.0] * 30))
    assert scene_starts([]).tolist() == []


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1"])
def test_b_joined_segments_are_at_most_2_percent_larger_than_one_encode_of_the_whole(tmp_path: Path, job, codec: str) -> None:
    source = write_scenes(tmp_path / "in.mkv")
    settings = {"model": "identity", "codec": codec, "preset": {"libsvtav1": "8"}.get(codec, "medium")}
    whole = job(source, tmp_path / "whole.mp4", segment_seconds=1000, **settings)
    joined = job(source, tmp_path / "joined.mp4", segment_seconds=None, **settings)
    assert (whole["segments"], joined["segments"]) == (1, 5)
    loss_db = psnr(source, tmp_path / "whole.mp4") - psnr(source, tmp_path / "joined.mp4")
    # A rule of thumb for equal quality: 6 dB cost twice the bits.
    larger = joined["size_bytes"] / whole["size_bytes"] * 2 ** (loss_db / 6)
    print(f"{codec}: size x{joined['size_bytes'] / whole['size_bytes']:.4f}, {-loss_db:+.3f} dB, x{larger:.4f} at equal PSNR")
    assert larger < 1.02


def write_scenes(path: Path) -> Path:
    """840 frames of 128x96 pixels: slow pans over textures, the scenes 90 to 230 frames long."""
    lengths, rng = [130, 230, 90, 210, 180], np.random.default_rng(1)
    pictures = []
    for length in lengths:
        texture = rng.normal(128, 50, (40, 60)).clip(0, 255).astype(np.uint8)
        wide = np.array(av.VideoFrame.from_ndarray(texture, "gray").reformat(360, 240, interpolation="BICUBIC").to_ndarray())
        pictures += [wide[i // 3 : i // 3 + 96, i // 2 : i // 2 + 128] for i in range(length)]
    return write_video(path, len(pictures), codec="ffv1", pix_fmt="yuv420p", size=(128, 96), pictures=pictures)


def psnr(a: Path, b: Path) -> float:
    error = [np.mean((luma(x).astype(float) - luma(y)) ** 2) for x, y in zip(decoded(a), decoded(b), strict=True)]
    return float(10 * np.log10(255**2 / np.mean(error)))
