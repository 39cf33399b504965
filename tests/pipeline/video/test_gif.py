"""GIF in and out: colours exact where 256 hold them, times in hundredths that never drift, transparency kept."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageFilter

from pipeline.errors import ConfigError, MediaError
from pipeline.video.gif import loops_of, palettize, shown_at
from pipeline.video.truncation import gif_is_cut
from tests.media import decoded, numbered_frame, payloads, times, write_video
from tests.pipeline.video.test_job import H264, StoppedError, stop_after
from tests.pipeline.video.test_sequences import write_images

SIZE = (64, 48)


def write_gif(path: Path, pictures: list[Image.Image], delays_ms: list[int], **options: object) -> Path:
    first, *others = pictures
    first.save(path, save_all=True, append_images=others, duration=delays_ms, optimize=False, **options)
    return path


def moving_dots(count: int) -> list[Image.Image]:
    """A disc that wanders over nothing."""
    y, x = np.mgrid[0 : SIZE[1], 0 : SIZE[0]]
    dots = []
    for number in range(count):
        inside = (x - 10 - 3 * number % 40) ** 2 + (y - 20) ** 2 < 100
        dots.append(Image.fromarray(np.dstack([inside * 200, inside * 90, inside * 5 * number, inside * 255]).astype(np.uint8)))
    return dots


def rgba(path: Path) -> list[np.ndarray]:
    """Every frame; what lies under transparent pixels is nothing."""
    frames = [frame.to_ndarray(format="rgba") for frame in decoded(path)]
    return [np.where(frame[..., 3:] > 0, frame, 0) for frame in frames]


def test_a1_uneven_delays_and_the_last_one_are_exact_in_a_video(tmp_path: Path, job, shared: Path) -> None:
    source = shared / "data/video/gif_vfr_transparent.gif"
    job(source, tmp_path / "out.mp4")
    starts = [Fraction(tick, 100) for tick in shown_at(str(source))]
    assert times(tmp_path / "out.mp4") == starts[:-1]
    with av.open(str(tmp_path / "out.mp4")) as container:
        video = container.streams.video[0]
        assert video.duration * video.time_base == starts[-1]


def test_a_gif_goes_to_a_gif_unchanged_and_no_larger(tmp_path: Path, job, shared: Path) -> None:
    source = shared / "data/video/gif_vfr_transparent.gif"
    job(source, tmp_path / "out.gif", model="identity", preset=None)
    assert shown_at(str(tmp_path / "out.gif")) == shown_at(str(source))
    assert all(np.array_equal(a, b) for a, b in zip(rgba(source), rgba(tmp_path / "out.gif"), strict=True))
    assert (tmp_path / "out.gif").stat().st_size <= source.stat().st_size
    assert loops_of(str(tmp_path / "out.gif")) == loops_of(str(source)) == 0


def test_transparency_is_kept_also_where_it_comes_back(tmp_path: Path, job) -> None:
    dots = moving_dots(8)
    source = write_gif(tmp_path / "in.gif", dots, [40, 90, 20, 20, 330, 50, 60, 70], disposal=2, loop=3)
    report = job(source, tmp_path / "out.gif", model="nearest-x2", preset=None)
    assert report["encode"]["pix_fmt"] == "rgba"
    for before, after in zip(rgba(source), rgba(tmp_path / "out.gif"), strict=True):
        assert np.array_equal(before.repeat(2, 0).repeat(2, 1), after)
    assert shown_at(str(tmp_path / "out.gif")) == [0, 4, 13, 15, 17, 50, 55, 61, 68]
    assert loops_of(str(tmp_path / "out.gif")) == 3
    with Image.open(tmp_path / "out.gif") as other:  # another reader sees the same
        for index, after in enumerate(rgba(tmp_path / "out.gif")):
            other.seek(index)
            seen = np.asarray(other.convert("RGBA"))
            assert np.array_equal(np.where(seen[..., 3:] > 0, seen, 0), after)


@pytest.mark.parametrize(("shown", "repeated"), [(0, 0), (1, None), (2, 1), (7, 6), (100_000, 65_535)])
def test_an_animated_png_repeats_as_a_gif_as_often(tmp_path: Path, job, shown: int, repeated: int | None) -> None:
    frames = moving_dots(3)
    frames[0].save(tmp_path / "in.png", save_all=True, append_images=frames[1:], duration=40, loop=shown)
    job(tmp_path / "in.png", tmp_path / "out.gif", model="identity", preset=None)
    assert loops_of(str(tmp_path / "out.gif")) == repeated


def test_transparency_goes_into_images_and_ffv1(tmp_path: Path, job) -> None:
    source = write_gif(tmp_path / "in.gif", moving_dots(4), [40] * 4, disposal=2)
    assert loops_of(str(source)) is None
    job(source, f"{tmp_path}/out/", model="identity", preset=None)
    job(source, tmp_path / "out.mkv", model="identity", codec="ffv1")
    for number, (before, lossless) in enumerate(zip(rgba(source), rgba(tmp_path / "out.mkv"), strict=True), start=1):
        with Image.open(tmp_path / "out" / f"{number:06d}.png") as image:
            assert image.mode == "RGBA"
            pixels = np.asarray(image)
        assert np.array_equal(np.where(pixels[..., 3:] > 0, pixels, 0), before)
        assert np.array_equal(lossless, before)
    job(f"{tmp_path}/out/", tmp_path / "back.gif", model="identity", preset=None)
    assert all(np.array_equal(a, b) for a, b in zip(rgba(source), rgba(tmp_path / "back.gif"), strict=True))
    assert shown_at(str(tmp_path / "back.gif")) == [0, 4, 8, 12, 16]


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), 24, Fraction(50), 15])
def test_times_are_rounded_one_by_one_and_never_drift(tmp_path: Path, job, rate: Fraction) -> None:
    source = write_video(tmp_path / "in.mp4", 70, rate=rate, options=H264)
    report = job(source, tmp_path / "out.gif", preset=None)
    assert report["segments"] > 1
    starts = shown_at(str(tmp_path / "out.gif"))
    exact = [*times(source), 70 / Fraction(rate)]
    assert all(abs(Fraction(tick, 100) - time) <= Fraction(1, 200) for tick, time in zip(starts, exact, strict=True))


def test_what_gif_cannot_show_is_refused_or_said_before_any_work(tmp_path: Path, job) -> None:
    fast = write_video(tmp_path / "fast.mp4", 12, rate=120)
    with pytest.raises(ConfigError, match=r"frame \d+ is shown for 0\.0083 s"):
        job(fast, tmp_path / "out.gif", preset=None)
    report = job(write_video(tmp_path / "60.mp4", 12, rate=60), tmp_path / "60.gif", preset=None)
    assert any("last 0.01 s" in line for line in report["warnings"])
    sound = write_video(tmp_path / "sound.mp4", 12, with_audio=True)
    assert any("audio" in line for line in job(sound, tmp_path / "sound.gif", preset=None)["warnings"])


@pytest.mark.parametrize(
    ("primaries", "transfer", "lost"), [(9, 16, ["primaries 9", "transfer 16"]), (9, 14, ["primaries 9"]), (1, 1, [])]
)
def test_what_colours_a_gif_cannot_state_is_listed(tmp_path: Path, job, primaries: int, transfer: int, lost: list[str]) -> None:
    tags = {"color_primaries": primaries, "color_trc": transfer}
    source = write_video(tmp_path / "in.mkv", 3, codec="ffv1", pix_fmt="yuv420p10le", tags=tags)
    listed = [line for line in job(source, tmp_path / "out.gif", preset=None)["warnings"] if "players take the colours" in line]
    assert [line.removeprefix("GIF cannot state ").split(" of ")[0] for line in listed] == lost


def test_b1_a_stopped_job_goes_on_and_gives_the_same_bytes(tmp_path: Path, job) -> None:
    source = write_video(tmp_path / "in.mp4", 90, options=H264)
    job(source, tmp_path / "whole.gif", preset=None)
    with pytest.raises(StoppedError):
        job(source, tmp_path / "out.gif", preset=None, run_units=stop_after(2))
    report = job(source, tmp_path / "out.gif", preset=None)
    assert report["segments_reused"] >= 2
    assert (tmp_path / "out.gif").read_bytes() == (tmp_path / "whole.gif").read_bytes()


def test_a_still_picture_costs_nothing_the_second_time(tmp_path: Path, job) -> None:
    still = [numbered_frame(3, *SIZE)] * 20
    source = write_video(tmp_path / "in.mkv", 20, codec="ffv1", pix_fmt="gray", pictures=still)
    job(source, tmp_path / "out.gif", model="identity", preset=None)
    sizes = [len(packet) for packet in payloads(tmp_path / "out.gif", "video")]
    assert len(sizes) == 20
    assert max(sizes[1:-1]) < 100 < sizes[0]


def test_many_colours_are_dithered_so_that_areas_keep_their_mean() -> None:
    y, x = np.mgrid[0:200, 0:300]
    rgb = np.dstack([x * 0.85, y * 1.2, (x + y) * 0.5]).astype(np.uint8)
    palette, indices = palettize(rgb, np.ones(rgb.shape[:2], bool), 256)
    assert len(palette) <= 256

    def softened(picture: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(4)), float)

    shown = palette[indices]
    assert np.abs(softened(shown) - softened(rgb)).mean() < 1.0
    few = rgb // 64 * 64
    palette, indices = palettize(few, np.ones(rgb.shape[:2], bool), 256)
    assert np.array_equal(palette[indices], few)


def test_a_gif_sequence_of_images_keeps_the_table_of_times(tmp_path: Path, job) -> None:
    source = write_images(tmp_path / "in", 3)
    delays = ["1/20", "3/100", "1/4"]
    lines = ["file,start_s,duration_s", *(f"{i:06d}.png,0,{delay}" for i, delay in enumerate(delays))]
    (source / "times.csv").write_text("\n".join(lines))
    job(source, tmp_path / "out.gif", model="identity", preset=None)
    assert shown_at(str(tmp_path / "out.gif")) == [0, 5, 8, 33]


def test_a5_a_gif_that_ends_early_is_recognised(tmp_path: Path, job) -> None:
    whole = write_video(tmp_path / "whole.gif", 10, codec="gif", pix_fmt="rgb8")
    assert not gif_is_cut(str(whole))
    data, source = whole.read_bytes(), tmp_path / "in.gif"
    for size in (len(data) - 1, len(data) * 2 // 3, len(data) // 2):
        source.write_bytes(data[:size])
        with pytest.raises(MediaError, match="the file is truncated: its blocks do not lead to its end"):
            job(source, tmp_path / "out.mp4")
    assert job(source, tmp_path / "out.mp4", on_decode_error="repeat")["exit_code"] == 3
    source.write_bytes(data[: len(data) // 2] + bytes(200) + data[len(data) // 2 + 200 :])
    with pytest.raises(MediaError, match="the file is truncated"):
        job(source, tmp_path / "overwritten.mp4")
