"""Whole jobs: every frame once, in order, on time, whatever codec and container; whatever dies on the way."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import resource
import signal
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from pipeline import local
from pipeline.driver import Outcome
from pipeline.errors import ConfigError, InterruptedRunError, MediaError, OutputError
from pipeline.video.encode import SegmentEncoder, held_bytes
from pipeline.video.packets import read_packets
from pipeline.video.plan import EncodeSpec
from swinir.checkpoint import random_state, to_bytes
from swinir.colour import PlaneLayout, rgb_to_planes
from swinir.model import SwinIRConfig
from tests.media import decoded, numbered_frame, numbers, payloads, times, write_video

MILLISECOND = Fraction(1, 1000)
H264 = {"g": "12", "bf": "3"}

SOURCES = {
    "h264 B-frames mp4": ("in.mp4", {"options": {**H264, "x264-params": "b-pyramid=normal"}}),
    "h264 open GOP mkv": ("in.mkv", {"options": {**H264, "x264-params": "open-gop=1"}}),
    "h264 open GOP mp4": ("in.mp4", {"options": {**H264, "x264-params": "open-gop=1"}}),
    "h264 23.976 mov": ("in.mov", {"options": H264, "rate": Fraction(24000, 1001)}),
    "h264 ts": ("in.ts", {"options": H264}),
    "hevc open GOP mp4": (
        "in.mp4",
        {"codec": "libx265", "options": {"x265-params": "keyint=12:bframes=3:open-gop=1:log-level=error"}},
    ),
    "vp9 webm": (
        "in.webm",
        {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "g": "12", "auto-alt-ref": "1", "lag-in-frames": "10"}},
    ),
    "av1 mp4": ("in.mp4", {"codec": "libsvtav1", "options": {"preset": "12", "g": "12"}}),
    "mpeg2 ts": ("in.ts", {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}}),
    "mpeg4 avi": ("in.avi", {"codec": "mpeg4", "options": {"g": "12"}}),
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_frame_comes_out_once_in_order_and_on_time(tmp_path: Path, job, name: str) -> None:
    file, settings = SOURCES[name]
    source = write_video(tmp_path / file, 60, **settings)

    report = job(source, tmp_path / "out.mkv", segment_seconds=0.96)

    assert report["segments"] > 1
    assert numbers(tmp_path / "out.mkv", scale=2) == numbers(source) == list(range(60))
    tolerance = MILLISECOND / 2 if file.endswith(("mkv", "webm")) else MILLISECOND
    assert all(abs(a - b) <= tolerance for a, b in zip(times(tmp_path / "out.mkv"), times(source), strict=True))


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1"])
def test_variable_frame_times_are_exact_in_mp4(tmp_path: Path, job, codec: str) -> None:
    rng = np.random.default_rng(5)
    pts = np.cumsum(rng.choice([20, 40, 41, 333], 60)).tolist()
    source = write_video(tmp_path / "in.mp4", 60, pts=pts, time_base=Fraction(1, 600), options=H264)

    report = job(source, tmp_path / "out.mp4", codec=codec)

    assert report["segments"] > 1
    assert times(tmp_path / "out.mp4") == times(source)
    assert numbers(tmp_path / "out.mp4", scale=2) == list(range(60))


@pytest.mark.parametrize("num_frames", [1, 2])
@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1", "ffv1"])
def test_the_shortest_videos(tmp_path: Path, job, codec: str, num_frames: int) -> None:
    source = write_video(tmp_path / "in.mp4", num_frames)
    assert job(source, tmp_path / "out.mkv", codec=codec)["frames_out"] == num_frames
    assert numbers(tmp_path / "out.mkv", scale=2) == list(range(num_frames))


def test_audio_chapters_tags_and_rotation_go_along(tmp_path: Path, job) -> None:
    plain = write_video(tmp_path / "plain.mp4", 50, with_audio=True)
    source = tmp_path / "in.mp4"
    with av.open(str(plain)) as old, av.open(str(source), "w") as new:
        copies = {s.index: new.add_stream_from_template(s, opaque=True) for s in old.streams}
        copies[0].set_display_rotation(90)
        copies[1].metadata["language"] = "deu"
        new.metadata["title"] = "Ein Film"
        new.set_chapters([{"id": 1, "start": 0, "end": 1000, "time_base": Fraction(1, 1000), "metadata": {"title": "Anfang"}}])
        for packet in old.demux():
            if packet.size:
                packet.stream = copies[packet.stream.index]
                new.mux(packet)

    job(source, tmp_path / "out.mp4")

    assert payloads(tmp_path / "out.mp4", "audio") == payloads(source, "audio")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.metadata["title"] == "Ein Film"
        assert container.streams.audio[0].metadata["language"] == "deu"
        assert [chapter["metadata"]["title"] for chapter in container.chapters()] == ["Anfang"]
    assert decoded(tmp_path / "out.mp4")[0].rotation == decoded(source)[0].rotation == 90


def test_a_second_run_does_nothing_and_another_setting_does_everything(tmp_path: Path, job) -> None:
    source = write_video(tmp_path / "in.mp4", 60, options=H264)
    first = job(source, tmp_path / "out.mkv")
    bytes_of_first = (tmp_path / "out.mkv").read_bytes()

    again = job(source, tmp_path / "out.mkv")
    assert (again["frames_processed"], again["segments_reused"]) == (0, first["segments"])
    assert job(source, tmp_path / "out.mkv", crf=30)["frames_processed"] == 60
    assert job(source, tmp_path / "out.mkv", fresh=True)["frames_processed"] == 60
    assert (tmp_path / "out.mkv").read_bytes() == bytes_of_first


def test_a_strength_or_an_ensemble_is_another_model(tmp_path: Path, job) -> None:
    source = write_video(tmp_path / "in.mp4", 3, options=H264)
    config = SwinIRConfig(upscale=2, depths=(1,), num_heads=(1,), embed_dim=4, upsampler="pixelshuffledirect")
    for seed in (1, 2):
        (tmp_path / f"{seed}.safetensors").write_bytes(to_bytes(random_state(config, seed)))
    settings = {"model": "auto", "weights": str(tmp_path / "1.safetensors"), "precision": "fp32"}
    fidelity = {"weights_fidelity": str(tmp_path / "2.safetensors")}
    half, less, own = (fidelity | {"strength": strength} for strength in (0.5, 0.4, 1.0))
    done = [job(source, tmp_path / "out.mkv", **settings, **more) for more in ({}, {"ensemble": 8}, half, less, less, own)]
    assert [report["frames_processed"] for report in done] == [3, 3, 3, 3, 0, 3]
    assert len({report["weights_sha256"] for report in done}) == 3  # strength 1 is the model itself


class StoppedError(Exception):
    pass


def stop_after(num_commits: int):
    """A runner that dies, as a process does, once so many units are committed."""

    def run(units, workload, ledger, options, on_event):
        left = [num_commits]

        def counting(event) -> None:
            on_event(event)
            left[0] -= event.kind == "committed"
            if left[0] == 0 and event.kind == "committed":
                raise StoppedError

        return local.run_units(units, workload, ledger, options, counting)

    return run


def test_what_fresh_began_goes_on_without_it_though_an_earlier_result_is_there(tmp_path: Path, job) -> None:
    source = write_video(tmp_path / "in.mp4", 120, options=H264)
    job(source, tmp_path / "out.mkv")

    def interrupted(units, *rest) -> Outcome:
        return replace(local.run_units(units[:2], *rest), interrupted=True)

    with pytest.raises(InterruptedRunError, match=r"^stopped at 2 of \d segments; the same command without --fresh goes on"):
        job(source, tmp_path / "out.mkv", run_units=interrupted, fresh=True)
    report = job(source, tmp_path / "out.mkv")
    assert report["segments_reused"] == 2
    assert job(source, tmp_path / "out.mkv")["frames_processed"] == 0


def test_b1_a_stopped_job_goes_on_and_gives_the_same_bytes(tmp_path: Path, job) -> None:
    source = write_video(tmp_path / "in.mp4", 120, options=H264, with_audio=True)
    job(source, tmp_path / "whole.mp4")

    with pytest.raises(StoppedError):
        job(source, tmp_path / "out.mp4", run_units=stop_after(2))
    assert not (tmp_path / "out.mp4").exists()
    report = job(source, tmp_path / "out.mp4")

    assert report["segments_reused"] >= 2
    assert report["frames_processed"] < 120
    assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["in.mp4", "out.mp4", "out.mp4.report.json", "whole.mp4", "whole.mp4.report.json"]


def test_b4_a_segment_that_was_damaged_after_its_commit_is_done_again(tmp_path: Path, job) -> None:
    source = write_video(tmp_path / "in.mp4", 120, options=H264)
    job(source, tmp_path / "whole.mkv")
    with pytest.raises(StoppedError):
        job(source, tmp_path / "out.mkv", run_units=stop_after(2))
    damaged = next((tmp_path / "out.mkv.swinir").rglob("*.arrow"))
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)

    job(source, tmp_path / "out.mkv")

    assert (tmp_path / "out.mkv").read_bytes() == (tmp_path / "whole.mkv").read_bytes()


def test_b_segments_with_other_extradata_are_refused(tmp_path: Path, job) -> None:
    """Never one segment's parameter sets over another's pictures."""
    source = write_video(tmp_path / "in.mp4", 120, options=H264)
    with pytest.raises(StoppedError):
        job(source, tmp_path / "out.mp4", run_units=stop_after(2))
    commit = next((tmp_path / "out.mp4.swinir").rglob("commits/*"))
    record = json.loads(commit.read_bytes())
    commit.write_text(json.dumps(record | {"extradata": base64.b64encode(b"another encoder's").decode()}))
    with pytest.raises(OutputError, match="segments were encoded with different headers; run again with --fresh"):
        job(source, tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()


def test_a_changed_source_reuses_nothing(tmp_path: Path, job) -> None:
    source = write_video(tmp_path / "in.mp4", 120, options=H264)
    with pytest.raises(StoppedError):
        job(source, tmp_path / "out.mkv", run_units=stop_after(2))
    write_video(source, 120, options={**H264, "crf": "30"})
    assert job(source, tmp_path / "out.mkv")["segments_reused"] == 0


def corrupted(source: Path, target: Path) -> Path:
    """The same video with the payload of one packet in the middle overwritten."""
    with av.open(str(source)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        victim = packets[len(packets) // 2]
        content = bytearray(source.read_bytes())
        content[victim.pos + 4 : victim.pos + victim.size] = b"\xff" * (victim.size - 4)
    target.write_bytes(content)
    return target


def test_a5_a_bad_packet_stops_the_job_or_is_repeated_and_listed(tmp_path: Path, job) -> None:
    clean = write_video(tmp_path / "clean.mp4", 60, options={"g": "60", "bf": "0", "x264-params": "ref=1"})
    source = corrupted(clean, tmp_path / "in.mp4")

    with pytest.raises(MediaError, match="--on-decode-error repeat"):
        job(source, tmp_path / "out.mkv")
    assert not (tmp_path / "out.mkv").exists()
    report = job(source, tmp_path / "out.mkv", on_decode_error="repeat")

    assert report["exit_code"] == 3
    assert report["video"]["damage"]
    assert report["frames_out"] == 60
    assert times(tmp_path / "out.mkv") == times(clean)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_truncated_file_is_recognised(tmp_path: Path, job, suffix: str) -> None:
    whole = write_video(tmp_path / f"whole{suffix}", 100, options={**H264, "movflags": "faststart"}, rate=10)
    if suffix == ".mp4":  # the index must come first, or nothing at all can be read
        moved = tmp_path / "moved.mp4"
        with av.open(str(whole)) as old, av.open(str(moved), "w", options={"movflags": "faststart"}) as new:
            copy = new.add_stream_from_template(old.streams[0])
            for packet in old.demux():
                if packet.size:
                    packet.stream = copy
                    new.mux(packet)
        whole = moved
    source = tmp_path / f"in{suffix}"
    source.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    with pytest.raises(MediaError, match="truncated"):
        job(source, tmp_path / "out.mkv")
    assert not (tmp_path / "out.mkv").exists()


def test_inputs_that_are_no_video_end_in_one_line(tmp_path: Path, job) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video at all " * 100)
    with av.open(str(tmp_path / "sound.mp4"), "w") as out:
        audio = out.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 48000
        out.mux(audio.encode(frame))
        out.mux(audio.encode(None))
    for name, said in {
        "missing.mp4": "missing",
        "empty.mp4": "empty",
        "text.mp4": "not a readable",
        "sound.mp4": "no video",
    }.items():
        with pytest.raises((MediaError, ConfigError)) as caught:
            job(tmp_path / name, tmp_path / "out.mkv")
        assert "\n" not in str(caught.value)
        assert name in str(caught.value), said
    with pytest.raises((MediaError, ConfigError)):
        job(tmp_path, tmp_path / "out.mkv")


def test_requests_that_cannot_be_met_end_before_any_work(tmp_path: Path, job) -> None:
    source = write_video(tmp_path / "in.mp4", 5)
    with pytest.raises(ConfigError, match=r"unknown ending '.xyz'"):
        job(source, tmp_path / "out.xyz")
    with pytest.raises(ConfigError, match="cannot hold libx264"):
        job(source, tmp_path / "out.webm")
    with pytest.raises(ConfigError, match="create it first"):
        job(source, tmp_path / "nowhere" / "out.mkv")
    with pytest.raises(ConfigError, match="nearest-x2"):
        job(source, tmp_path / "out.mkv", model="nearest-x22")
    (tmp_path / "mine.mkv").write_bytes(b"precious")
    with pytest.raises(ConfigError, match="--overwrite"):
        job(source, tmp_path / "mine.mkv")
    assert (tmp_path / "mine.mkv").read_bytes() == b"precious"


def test_two_jobs_on_one_destination(tmp_path: Path, job) -> None:
    source = write_video(tmp_path / "in.mp4", 30)

    def run_another(units, workload, ledger, options, on_event):
        with pytest.raises(ConfigError, match="another running command"):
            job(source, tmp_path / "out.mkv")
        return local.run_units(units, workload, ledger, options, on_event)

    assert job(source, tmp_path / "out.mkv", run_units=run_another)["frames_out"] == 30


def test_subtitles_that_the_container_refuses_stop_the_job_with_a_remedy(tmp_path: Path, job, shared: Path) -> None:
    source = shared / "data/video/subs_pgs_ac3.mkv"
    with pytest.raises(
        ConfigError, match=r"stream 2 \(subtitle, pgssub\); choose an .mkv destination or pass --drop-incompatible"
    ):
        job(source, tmp_path / "out.mp4")
    streams = job(source, tmp_path / "out.mp4", drop_incompatible=True)["streams"]
    assert [s["action"] for s in streams] == ["upscale", "copy", "drop"]


def test_d2_the_dry_mux_comes_before_a_model_loads(tmp_path: Path, job) -> None:
    source = write_video(tmp_path / "in.mp4", 5, with_audio=True)
    with pytest.raises(ConfigError, match=r"webm.*stream 1 \(audio, aac\)"):
        job(source, tmp_path / "out.webm", codec="libsvtav1", model="auto", weights=str(tmp_path / "none.safetensors"))


def test_the_report_tells_what_was_done(tmp_path: Path, job) -> None:
    source = write_video(tmp_path / "in.mp4", 30, with_audio=True)
    report = job(source, tmp_path / "out file ü%.mkv")
    assert json.loads((tmp_path / "out file ü%.mkv.report.json").read_text()) == report
    expected = {
        "frames_in": 30,
        "frames_out": 30,
        "frames_repaired": [],
        "frames_processed": 30,
        "model": "nearest-x2",
        "exit_code": 0,
    }
    assert {key: report[key] for key in expected} == expected
    assert [stream["action"] for stream in report["streams"]] == ["upscale", "copy"]


def test_a_preset_that_the_encoder_does_not_know_is_refused_before_any_work(tmp_path: Path, job) -> None:
    source = write_video(tmp_path / "in.mp4", 5)
    with pytest.raises(ConfigError, match="libx264 refuses --preset nonsense"):
        job(source, tmp_path / "out.mkv", preset="nonsense")
    with pytest.raises(ConfigError, match="is the source itself"):
        job(source, source, overwrite=True)


def test_workers_find_the_source_from_another_working_directory(tmp_path: Path, job, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    write_video(tmp_path / "in.mp4", 10)

    def run_there(*arguments: Any) -> Outcome:
        with contextlib.chdir(tmp_path / "elsewhere"):
            return local.run_units(*arguments)

    monkeypatch.chdir(tmp_path)
    report = job("in.mp4", "out.mkv", run_there)
    assert (report["source"], report["frames_out"]) == ("in.mp4", 10)


def test_h264_gives_the_same_bytes_again(tmp_path: Path) -> None:
    """With AVX-512, x264's mbtree does not, at sizes like this one; see encoder_options."""
    spec = EncodeSpec("libx264", "yuv420p", 960, 544, "1/25", "25", None, 0, 2, 2, 2, 16.0, "medium", 4, True)
    luma = [torch.from_numpy(np.kron(numbered_frame(n, 240, 136), np.ones((4, 4), np.uint8))) for n in range(48)]
    chroma = torch.full((272, 480), 128, dtype=torch.uint8)
    results = set()
    for run in range(3):
        encoder = SegmentEncoder(tmp_path / f"{run}.arrow", spec, PlaneLayout("yuv", 8, 1, 1))
        for n, plane in enumerate(luma):
            encoder.write([plane, chroma, chroma], n)
        encoder.finish()
        results.add(b"".join(packet.data for packet in read_packets(tmp_path / f"{run}.arrow")))
    assert len(results) == 1


def test_a_segment_says_what_it_takes_of_a_machine(tmp_path: Path, job) -> None:
    source = write_video(tmp_path / "in.mp4", 12, options=H264)
    said = []

    def run(units, workload, ledger, options, on_event):
        said.append((options.unit_cpus, options.unit_bytes))
        return local.run_units(units, workload, ledger, options, on_event)

    job(source, tmp_path / "a.mkv", run_units=run, encoder_threads=3)
    job(source, tmp_path / "b.mkv", run_units=run, pix_fmt="yuv444p10le")
    (cpus, held), (_, held_of_444_in_two_bytes) = said
    assert cpus == 3
    assert held_of_444_in_two_bytes == 4 * held
    assert (
        held_bytes(EncodeSpec("libx264", "yuv420p", 3840, 2160, "1/25", "25", None, 0, 2, 2, 2, 16.0, "medium", 4, True)) > 3e9
    )


def test_a_disk_that_fills_up_leaves_nothing_and_resumes(tmp_path: Path, job) -> None:
    source = write_video(tmp_path / "in.mp4", 60, options=H264)

    def full(units, workload, ledger, options, on_event):
        outcome = local.run_units(units, workload, ledger, options, on_event)
        limit = next((tmp_path / "out.mkv.swinir").rglob("*.arrow")).stat().st_size // 2  # what a file may grow to
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        return outcome

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(OutputError):
            job(source, tmp_path / "out.mkv", run_units=full)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert not (tmp_path / "out.mkv").exists()
    assert job(source, tmp_path / "out.mkv")["frames_processed"] == 0


def test_a3_a_clock_that_jumps_back_is_refused_and_the_frame_named(tmp_path: Path, job) -> None:
    part = write_video(tmp_path / "part.ts", 50, options={"g": "12", "bf": "0"})
    source = tmp_path / "in.ts"
    source.write_bytes(part.read_bytes() * 2)
    with pytest.raises(MediaError, match=r"jump back by .* at frame 50"):
        job(source, tmp_path / "out.mkv")


def test_an_avi_whose_packets_are_empty_where_nothing_changes_is_whole(tmp_path: Path, job) -> None:
    pts = [*range(10), *range(30, 40)]
    source = write_video(tmp_path / "in.avi", 20, codec="mpeg4", pts=pts, time_base=Fraction(1, 25))
    assert job(source, tmp_path / "out.mkv")["exit_code"] == 0
    assert times(tmp_path / "out.mkv") == [Fraction(each, 25) for each in pts]


def test_a_truncated_avi_is_recognised_by_the_bytes_it_states(tmp_path: Path, job) -> None:
    whole = write_video(tmp_path / "whole.avi", 75, codec="mpeg4", options={"g": "12"})
    source = tmp_path / "in.avi"
    source.write_bytes(whole.read_bytes()[: whole.stat().st_size * 8 // 10])
    with pytest.raises(MediaError, match="truncated"):
        job(source, tmp_path / "out.mkv")


@pytest.mark.parametrize("codec", ["ffv1", "libsvtav1"])
def test_what_mpeg_ts_would_hold_as_mere_data_is_refused(tmp_path: Path, job, codec: str) -> None:
    source = write_video(tmp_path / "in.mp4", 5)
    with pytest.raises(ConfigError, match=f"mpegts cannot hold {codec}"):
        job(source, tmp_path / "out.ts", codec=codec)


def test_grey_is_luma_not_the_mean_of_the_channels() -> None:
    red = torch.zeros(3, 1, 1)
    red[0] = 1
    assert int(rgb_to_planes(red, PlaneLayout("gray", 8, matrix="smpte170m"))[0]) == 81  # ITU-R BT.601: 16 + 65.481, rounded
