"""One PNG per frame as a destination: exact pixels and times, whole or not at all, and nothing of others replaced."""

from __future__ import annotations

import csv
import errno
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import local
from pipeline.config import VideoConfig, build_config
from pipeline.errors import ConfigError, OutputError
from pipeline.storage import Store
from pipeline.video.destination import config_for, format_of
from pipeline.video.frames import layout_of, to_planes
from swinir.colour import planes_to_rgb
from tests.media import decoded, numbers, read_number, times, write_video
from tests.pipeline.video.test_job import H264, StoppedError, stop_after
from tests.pipeline.video.test_sequences import picture, write_images


def images(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.png"))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "I;16"])
def test_c1_png_to_png_without_a_model_returns_every_pixel(tmp_path: Path, job, mode: str) -> None:
    source = write_images(tmp_path / "in", 4, mode=mode)
    job(source, f"{tmp_path}/out/", model="identity", preset=None)
    assert [path.name for path in images(tmp_path / "out")] == [f"{n:06d}.png" for n in range(1, 5)]
    for number, path in enumerate(images(tmp_path / "out")):
        with Image.open(path) as result:
            assert result.mode == mode
            assert np.array_equal(np.asarray(result), np.asarray(picture(number, mode)))


def test_sixteen_bits_of_colour_and_alpha_go_there_and_back(tmp_path: Path, job) -> None:
    source = write_video(tmp_path / "in.mkv", 3, codec="ffv1", pix_fmt="gbrap16le")
    job(source, f"{tmp_path}/out/", model="identity", preset=None)
    job(tmp_path / "out", tmp_path / "back.mkv", model="identity", codec="ffv1", pix_fmt=decoded(source)[0].format.name)
    for path in images(tmp_path / "out"):
        assert decoded(path)[0].format.name in ("rgb48be", "rgba64be")
    for before, after in zip(decoded(source), decoded(tmp_path / "back.mkv"), strict=True):
        assert [bytes(plane) for plane in before.planes] == [bytes(plane) for plane in after.planes]


def test_yuv_becomes_rgb_by_our_own_exact_conversion(tmp_path: Path, job) -> None:
    source = write_video(tmp_path / "in.mkv", 2, codec="ffv1", pix_fmt="yuv444p10le", tags={"colorspace": 9, "color_range": 1})
    job(source, f"{tmp_path}/out/", model="identity", preset=None)
    layout = layout_of("yuv444p10le", "bt2020nc", full_range=False)
    for before, path in zip(decoded(source), images(tmp_path / "out"), strict=True):
        after = decoded(path)[0]
        assert after.format.name == "rgb48be"
        codes = torch.stack([plane.int() for plane in to_planes(after, layout_of("rgb48be", "bt709", full_range=True))])
        exact = planes_to_rgb(to_planes(before, layout), layout).clamp(0, 1) * 65535
        assert int((codes - exact.round().int()).abs().max()) == 0


def test_c4_primaries_and_transfer_are_stated_in_the_images(tmp_path: Path, job) -> None:
    tags = {"colorspace": 9, "color_primaries": 9, "color_trc": 16, "color_range": 1}
    source = write_video(tmp_path / "in.mkv", 2, codec="ffv1", pix_fmt="yuv420p10le", tags=tags)
    job(source, f"{tmp_path}/out/", model="identity", preset=None)
    frame = decoded(tmp_path / "out" / "000001.png")[0]
    assert (frame.color_primaries, frame.color_trc, frame.color_range) == (9, 16, 2)


def test_a1_times_of_variable_rate_lie_beside_and_come_back(tmp_path: Path, job) -> None:
    pts = np.cumsum(np.random.default_rng(5).choice([20, 40, 41, 333], 40)).tolist()
    source = write_video(tmp_path / "in.mp4", 40, pts=pts, time_base=Fraction(1, 600), options=H264, with_audio=True)

    report = job(source, f"{tmp_path}/out/", preset=None)

    assert any("audio" in line and "drop" in line for line in report["warnings"])
    with (tmp_path / "out" / "times.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [Fraction(row["start_s"]) for row in table] == times(source)
    assert [row["file"] for row in table] == [path.name for path in images(tmp_path / "out")]
    again = job(tmp_path / "out", tmp_path / "back.mp4", model="identity")
    assert again["guesses"] == [line for line in again["guesses"] if "shown at" not in line]
    assert times(tmp_path / "back.mp4") == times(source)
    assert numbers(tmp_path / "back.mp4", scale=2) == list(range(40))


def test_rotated_video_comes_out_upright(tmp_path: Path, job, shared: Path) -> None:
    source = shared / "data/video/rotate90_ios_phone.mov"
    report = job(source, f"{tmp_path}/out/", model="identity", preset=None)
    first = decoded(source)[0]
    with Image.open(tmp_path / "out" / "000001.png") as image:
        assert image.size == (report["width"], report["height"]) == (first.height, first.width)
        turned = Image.fromarray(first.to_ndarray(format="rgb24")).rotate(first.rotation, expand=True)
        assert np.abs(np.asarray(image.convert("L"), float) - np.asarray(turned.convert("L"), float)).mean() < 4


def test_b1_a_stopped_job_goes_on_and_the_folder_appears_whole(tmp_path: Path, job) -> None:
    source = write_video(tmp_path / "in.mp4", 90, options=H264)
    job(source, f"{tmp_path}/whole/", preset=None)
    with pytest.raises(StoppedError):
        job(source, f"{tmp_path}/out/", preset=None, run_units=stop_after(2))
    assert not (tmp_path / "out").exists()

    report = job(source, f"{tmp_path}/out/", preset=None)

    assert report["segments_reused"] >= 2
    names = sorted(os.listdir(tmp_path / "out"))
    assert len(names) == 91
    assert all((tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes() for name in names)
    assert sorted(os.listdir(tmp_path)) == ["in.mp4", "out", "out.report.json", "whole", "whole.report.json"]
    assert job(source, f"{tmp_path}/out/", preset=None)["frames_processed"] == 0
    (tmp_path / "out" / "000007.png").unlink()
    assert job(source, f"{tmp_path}/out/", preset=None)["frames_processed"] == 90


def test_another_result_of_ours_replaces_the_folder_and_leaves_no_frame_of_the_old_one(tmp_path: Path, job) -> None:
    job(write_video(tmp_path / "long.mp4", 30), f"{tmp_path}/out/", preset=None)
    short = write_video(tmp_path / "short.mp4", 10)
    job(short, f"{tmp_path}/out/", preset=None)
    assert len(images(tmp_path / "out")) == 10
    assert sorted(os.listdir(tmp_path)) == ["long.mp4", "out", "out.report.json", "short.mp4"]


def test_numbered_names_lie_among_other_files_which_stay(tmp_path: Path, job) -> None:
    source = write_video(tmp_path / "in.mp4", 5)
    (tmp_path / "f-cover.png").write_bytes(b"precious")
    job(source, tmp_path / "f-%d.png", preset=None)
    assert sorted(os.listdir(tmp_path)) == sorted(
        [f"f-{n}.png" for n in range(1, 6)] + ["f-%d.png.report.json", "f-%d.png.times.csv", "f-cover.png", "in.mp4"]
    )
    assert job(source, tmp_path / "f-%d.png", preset=None)["frames_processed"] == 0
    job(tmp_path / "f-%d.png", tmp_path / "g-%d.png", preset=None, model="identity")
    assert len(list(tmp_path.glob("g-?.png"))) == 5


@pytest.mark.parametrize(("destination", "foreign"), [("out/", "out/notes.txt"), ("out/f%d.png", "out/f003.png")])
def test_what_others_put_there_is_not_replaced_without_overwrite(tmp_path: Path, job, destination: str, foreign: str) -> None:
    source = write_video(tmp_path / "in.mp4", 5)
    (tmp_path / "out").mkdir()
    (tmp_path / foreign).write_bytes(b"precious")
    with pytest.raises(ConfigError, match=rf"{foreign} exists .* --overwrite"):
        job(source, f"{tmp_path}/{destination}", preset=None)
    assert os.listdir(tmp_path / "out") == [Path(foreign).name]
    job(source, f"{tmp_path}/{destination}", preset=None, overwrite=True)
    assert (tmp_path / "out" / "notes.txt").exists() == (foreign == "out/notes.txt")
    assert len(images(tmp_path / "out")) == 5


def test_the_source_itself_is_never_replaced(tmp_path: Path, job) -> None:
    source = write_images(tmp_path / "in", 3)
    for destination in (f"{source}/", source / "%06d.png", source / "%d.png"):
        for read in (source, source / "%06d.png"):
            with pytest.raises(ConfigError, match="is the source itself"):
                job(read, destination, preset=None, overwrite=True)
    assert len(os.listdir(source)) == 3


def test_the_source_is_found_behind_a_link_to_its_folder(tmp_path: Path, job) -> None:
    (tmp_path / "real").mkdir()
    source = write_video(tmp_path / "real" / "in.mkv", 3)
    (tmp_path / "link").symlink_to("real")
    before = source.read_bytes()
    for read, destination in ((source, tmp_path / "link/in.mkv"), (tmp_path / "link/in.mkv", source)):
        with pytest.raises(ConfigError, match="is the source itself"):
            job(read, destination, overwrite=True)
    assert source.read_bytes() == before


def test_a_file_that_took_the_place_of_a_result_is_not_replaced(tmp_path: Path, job) -> None:
    source, out = write_video(tmp_path / "in.mkv", 3), tmp_path / "out.mkv"
    job(source, out)
    out.write_bytes(b"precious")
    with pytest.raises(ConfigError, match=r"out\.mkv exists and was not made by this program; pass --overwrite"):
        job(source, out, crf=30)
    assert out.read_bytes() == b"precious"
    job(source, out, crf=30, overwrite=True)
    job(source, out, crf=31)  # ours again

    report = tmp_path / "out.mkv.report.json"
    report.write_text('{"my": "thing"}')
    out.unlink()
    with pytest.raises(ConfigError, match=r"report\.json is no report of this program"):
        job(source, out)
    assert report.read_text() == '{"my": "thing"}'


def test_a_job_that_was_killed_between_report_and_result_goes_on(tmp_path: Path, job, monkeypatch) -> None:
    source, out = write_video(tmp_path / "in.mkv", 3), tmp_path / "out.mkv"
    job(source, out)
    take = Store.take

    def killed(self: Store, local: Path, key: str) -> None:
        if key == "out.mkv":
            raise StoppedError
        take(self, local, key)

    monkeypatch.setattr(Store, "take", killed)
    with pytest.raises(StoppedError):
        job(source, out, crf=30)
    monkeypatch.undo()
    assert job(source, out, crf=30)["segments_reused"] == 1
    assert sorted(os.listdir(tmp_path)) == ["in.mkv", "out.mkv", "out.mkv.report.json"]


def test_what_a_job_killed_at_its_very_end_leaves_goes_with_the_next(tmp_path: Path, job, monkeypatch) -> None:
    source, out = write_video(tmp_path / "in.mkv", 3), tmp_path / "out.mkv"
    delete_all = Store.delete_all

    def killed(self: Store, prefix: str) -> None:
        if not prefix:
            raise StoppedError
        delete_all(self, prefix)

    monkeypatch.setattr(Store, "delete_all", killed)
    with pytest.raises(StoppedError):
        job(source, out)
    monkeypatch.undo()
    assert (tmp_path / "out.mkv.swinir" / "publishing").exists()
    assert job(source, out)["segments_reused"] == 1
    assert sorted(os.listdir(tmp_path)) == ["in.mkv", "out.mkv", "out.mkv.report.json"]


def test_what_another_job_has_begun_for_a_finished_result_stays(tmp_path: Path, job) -> None:
    source, out = write_video(tmp_path / "in.mkv", 60, options=H264), tmp_path / "out.mkv"
    job(source, out)
    with pytest.raises(StoppedError):
        job(source, out, crf=30, run_units=stop_after(1))
    assert job(source, out)["frames_processed"] == 0
    assert job(source, out, crf=30)["segments_reused"] >= 1


def test_a_full_disk_says_to_go_on_without_fresh(tmp_path: Path, job) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    source = write_video(tmp_path / "in.mkv", 3)
    for fresh, advice in ((True, "the same command without --fresh goes on"), (False, "the same command goes on")):
        with pytest.raises(OutputError, match=f"No space left on device; {advice}"):
            job(source, tmp_path / "out.mkv", run_units=full, fresh=fresh)


def test_names_that_are_no_text_are_in_the_table_of_times(tmp_path: Path, job) -> None:
    source = write_video(tmp_path / "in.mp4", 3, rate=10)
    images = f"{tmp_path}/caf\udce9-%03d.png"
    job(source, images, preset=None)
    job(images, tmp_path / "out.mkv", model="identity")
    assert times(tmp_path / "out.mkv") == times(source)


def test_images_that_somebody_changed_or_added_are_not_replaced(tmp_path: Path, job) -> None:
    source, out = write_video(tmp_path / "in.mp4", 5), tmp_path / "out"
    job(source, f"{out}/", preset=None)
    for name in ("000003.png", "000006.png"):
        before = (out / name).read_bytes() if (out / name).exists() else None
        (out / name).write_bytes(b"precious")
        with pytest.raises(ConfigError, match=r"out.* exists and was not made by this program; pass --overwrite"):
            job(source, f"{out}/", preset=None)
        assert (out / name).read_bytes() == b"precious"
        if before:
            (out / name).write_bytes(before)
    assert job(source, f"{out}/", preset=None, overwrite=True)["frames_processed"] == 5
    assert len(images(out)) == 5


def test_a_link_to_a_folder_stays_one(tmp_path: Path, job) -> None:
    source = write_video(tmp_path / "in.mp4", 5)
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    for _ in range(2):
        job(source, f"{tmp_path}/out/", preset=None, overwrite=True, fresh=True)
        assert (tmp_path / "out").is_symlink()
        assert len(images(tmp_path / "disk")) == 5


def test_a_folder_or_file_of_others_is_not_taken_for_the_state_of_a_job(tmp_path: Path, job) -> None:
    source, work = write_video(tmp_path / "in.mkv", 3), tmp_path / "out.mkv.swinir"
    work.mkdir()
    (work / "mine.txt").write_text("precious")
    with pytest.raises(ConfigError, match=r"mine\.txt was not made by this program; move it"):
        job(source, tmp_path / "out.mkv", overwrite=True)
    assert (work / "mine.txt").read_text() == "precious"
    (work / "mine.txt").rename(tmp_path / "mine.txt")
    work.rmdir()
    (tmp_path / "mine.txt").rename(work)
    with pytest.raises(ConfigError, match="is a file, where this job would keep its state"):
        job(source, tmp_path / "out.mkv")


@pytest.mark.parametrize(
    ("destination", "settings", "said"),
    [
        ("out/", {"codec": "libx265"}, "takes no --codec libx265"),
        ("out/", {"crf": 3}, "takes no --crf 3"),
        ("out_%d.jpg", {}, "written as .png"),
        ("out.mkv", {"codec": "png"}, "is for a folder/ destinations"),
        ("out.png", {}, "unknown ending"),
        ("nowhere/%d.png", {}, "create it first"),
    ],
)
def test_requests_that_no_image_meets_end_before_any_work(tmp_path: Path, job, destination, settings, said) -> None:
    source = write_video(tmp_path / "in.mp4", 3)
    with pytest.raises(ConfigError, match=said):
        job(source, f"{tmp_path}/{destination}", **{"preset": None, **settings})
    assert os.listdir(tmp_path) == ["in.mp4"]


@pytest.mark.parametrize("url", ["out/", "out-%d.png", "out.gif"])
def test_what_a_file_of_settings_chose_for_video_is_no_matter_of_pictures(tmp_path: Path, url: str) -> None:
    (tmp_path / "c.yaml").write_text("codec: libx265\ncrf: 18\npreset: slow\npix_fmt: yuv420p10le\ntile: 96\n")
    config = build_config(VideoConfig, tmp_path / "c.yaml", {})
    codec = "gif" if url.endswith(".gif") else "png"
    assert config_for(config, format_of(url), url) == VideoConfig(codec=codec, tile=96)
    for option in ({"codec": "libx265"}, {"crf": 20}, {"preset": "fast"}):
        asked = build_config(VideoConfig, tmp_path / "c.yaml", option)
        with pytest.raises(ConfigError, match=f"takes no --{next(iter(option))}"):
            config_for(asked, format_of(url), url)


def test_to_a_folder_of_a_bucket_and_stopped_while_it_was_published(tmp_path: Path, job, s3_url: str, s3) -> None:
    source = write_video(tmp_path / "in.mp4", 6)
    s3.rule = lambda method, path: 403 if method == "PUT" and path.endswith("000004.png") else None
    with pytest.raises(ConfigError, match="may not write"):
        job(source, f"{s3_url}/out/", preset=None)
    s3.rule = None
    report = job(source, f"{s3_url}/out/", preset=None)
    assert report["frames_processed"] == 0
    expected = [*(f"out/{n:06d}.png" for n in range(1, 7)), "out.report.json", "out/times.csv"]
    assert sorted(Store(s3_url).list()) == sorted(expected)
    assert job(source, f"{s3_url}/out/", preset=None)["segments_reused"] == report["segments"]
    Store(s3_url).download("out/000006.png", tmp_path / "6.png")
    assert read_number(decoded(tmp_path / "6.png")[0].to_ndarray(format="gray"), scale=2) == 5


def test_a_damaged_segment_is_done_again(tmp_path: Path, job) -> None:
    source = write_video(tmp_path / "in.mp4", 60, options=H264)

    def spoiled(units, workload, ledger, options, on_event):
        outcome = local.run_units(units, workload, ledger, options, on_event)
        if not spoilt:
            segment = next((tmp_path / "out.swinir").rglob("*.arrow"))
            segment.write_bytes(segment.read_bytes()[:-100])
            spoilt.append(segment)
        return outcome

    spoilt: list[Path] = []
    assert job(source, f"{tmp_path}/out/", preset=None, run_units=spoiled)["frames_out"] == 60
    assert len(images(tmp_path / "out")) == 60
