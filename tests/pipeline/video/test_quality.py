"""How a larger video moves beside its source."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from jobs.compare import compare
from pipeline.errors import ConfigError
from pipeline.video.quality import boxed, check_match, measure_frames, open_video, summary
from tests.media import numbered_frame, write_video

NUM_FRAMES = 8
SMALL = [numbered_frame(number, 64, 48) for number in range(NUM_FRAMES)]
NEAREST = [frame.repeat(2, axis=0).repeat(2, axis=1) for frame in SMALL]


def write(path, pictures, **options):
    """Every code as it is, in limited range unless ``options`` say more."""
    size = (pictures[0].shape[1], pictures[0].shape[0])
    return str(write_video(path, len(pictures), codec="ffv1", pix_fmt="gray", size=size, pictures=pictures, **options))


def with_noise(pictures, sigma):
    rng = np.random.default_rng(0)
    return [np.clip(picture + rng.normal(0, sigma, picture.shape), 16, 235).round().astype(np.uint8) for picture in pictures]


@pytest.fixture
def source(tmp_path):
    return write(tmp_path / "source.mkv", SMALL)


def measured(source, result, truth=None):
    videos = [open_video(source), open_video(result), open_video(truth) if truth else None]
    check_match(*videos)
    return list(measure_frames(*videos))


def run(*arguments):
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(compare)
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_nearest_changes_exactly_as_its_source(tmp_path, source):
    frames = measured(source, write(tmp_path / "x2.mkv", NEAREST))
    assert [frame.flicker for frame in frames] == [None] + [1.0] * (NUM_FRAMES - 1)
    changes = [np.abs(b.astype(float) - a).mean() * 255 / 219 for a, b in pairwise(SMALL)]
    assert [frame.source_change for frame in frames[1:]] == pytest.approx(changes)
    assert [frame.time_s for frame in frames] == pytest.approx([number / 25 for number in range(NUM_FRAMES)])


def test_noise_of_every_frame_is_flicker_and_more_noise_is_more(tmp_path, source):
    results = [write(tmp_path / f"{sigma}.mkv", with_noise(NEAREST, sigma)) for sigma in (8, 20)]
    mild, strong = ([frame.flicker for frame in measured(source, result)[1:]] for result in results)
    assert all(1.01 < a < b for a, b in zip(mild, strong, strict=True))


def test_blur_over_time_is_less_than_one(tmp_path, source):
    smoothed = [((a.astype(int) + b) // 2).astype(np.uint8) for a, b in zip(NEAREST, NEAREST[:1] + NEAREST, strict=False)]
    assert summary(measured(source, write(tmp_path / "x2.mkv", smoothed)))["flicker"] < 0.95


def test_a_result_of_full_range_changes_as_its_source_of_limited_range(tmp_path, source):
    full = [((picture.astype(float) - 16) / 219 * 255).round().clip(0, 255).astype(np.uint8) for picture in NEAREST]
    frames = measured(source, write(tmp_path / "full.mkv", full, tags={"color_range": 2}))
    assert [frame.flicker for frame in frames[1:]] == pytest.approx([1.0] * (NUM_FRAMES - 1), abs=0.02)


def test_psnr_is_of_each_frame_against_its_own_truth(tmp_path, source):
    truth = write(tmp_path / "truth.mkv", NEAREST)
    worn = [*NEAREST[:3], NEAREST[3] + np.uint8(1), *NEAREST[4:]]
    frames = measured(source, write(tmp_path / "x2.mkv", worn), truth)
    assert frames[3].psnr == pytest.approx(20 * math.log10(219))
    assert [frame.psnr for frame in frames[:3] + frames[4:]] == [math.inf] * (NUM_FRAMES - 1)
    assert summary(frames)["least_psnr"] == frames[3].psnr


def test_a_still_source_has_no_flicker_to_compare_with_but_the_changes_are_said(tmp_path):
    still = write(tmp_path / "still.mkv", SMALL[:1] * 3)
    frames = measured(still, write(tmp_path / "x2.mkv", with_noise(NEAREST[:1] * 3, 8)))
    assert [frame.flicker for frame in frames] == [None] * 3
    assert frames[1].result_change > 1
    assert summary(frames)["flicker"] is None


def test_boxes_are_means_of_the_pixels_they_stand_for():
    luma = torch.arange(24, dtype=torch.float64).view(4, 6)
    assert boxed(luma, (2, 2)).tolist() == [[4, 7], [16, 19]]


@pytest.mark.parametrize(
    ("pictures", "truth", "message"),
    [
        (NEAREST[:5], None, "has 5 frames, .* has 8: frames are compared one by one"),
        ([picture[::4, ::4] for picture in NEAREST], None, "is 32x24, smaller than .*, 64x48; give the source first"),
        (NEAREST, SMALL, "is 64x48, but .* is 128x96; the truth has its size"),
    ],
)
def test_videos_that_do_not_belong_together_are_refused(tmp_path, source, pictures, truth, message):
    result = write(tmp_path / "x2.mkv", pictures)
    with pytest.raises(ConfigError, match=message):
        measured(source, result, truth and write(tmp_path / "truth.mkv", truth))


def test_the_command_prints_a_line_for_each_frame_and_one_for_all_and_draws_them(tmp_path, source):
    result, truth = (
        write(tmp_path / name, pictures) for name, pictures in (("x2.mkv", with_noise(NEAREST, 8)), ("t.mkv", NEAREST))
    )
    told = run(source, result, "--truth", truth, "--json", "--plot", tmp_path / "curves.png")
    rows = [json.loads(line) for line in told.stdout.splitlines()]
    assert told.exit_code == 0
    assert [row.get("frame") for row in rows] == [*range(NUM_FRAMES), None]
    assert rows[-1]["flicker"] > 1.01
    assert rows[-1]["worst_flicker"] == max(row["flicker"] for row in rows[1:-1])
    colours = {colour for _, colour in Image.open(tmp_path / "curves.png").getcolors(1 << 16)}
    assert {(255, 0, 0), (0, 0, 255), (128, 0, 128), (128, 128, 128)} <= colours
    assert "times the source's" in run(source, result).stdout
    assert "PSNR     inf dB" in run(source, truth, "--truth", truth).stdout


def test_a_damaged_file_is_said_and_never_exit_0(tmp_path, source):
    cut = tmp_path / "cut.mkv"
    with open(source, "rb") as file:
        whole = file.read()
    cut.write_bytes(whole[: len(whole) * 3 // 4])
    told = run(cut, cut)
    assert told.exit_code == 3
    assert "cut.mkv" in told.stderr
    assert told.stderr.startswith("damaged: ")


def test_what_the_plot_cannot_be_written_to_is_said_before_the_work(tmp_path):
    with pytest.raises(ConfigError, match="is not a folder; make it first"):
        run("no.mkv", "no.mkv", "--plot", tmp_path / "nowhere" / "p.png")
