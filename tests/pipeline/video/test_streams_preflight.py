"""What a container refuses is known before the work: statement D2."""

from __future__ import annotations

import time
from pathlib import Path

import av
import pytest

from pipeline import local
from pipeline.config import VideoConfig
from pipeline.errors import ConfigError
from pipeline.video.compare import compare
from pipeline.video.describe import describe
from pipeline.video.drymux import plan_streams
from pipeline.video.job import upscale_video
from pipeline.video.streams import FORMATS
from tests.pipeline.video.conftest import Listening
from tests.pipeline.video.test_sequences import write_images
from tests.sources import Builder, digests, packet_times, rich_mkv

TEXT = [(100, 900, "Guten Tag"), (1000, 1900, "<i>Ende</i>")]
ASS = [(0, 500, "0,0,Default,,0,0,0,,{\\pos(5,5)}Schild")]

# Kind of stream and container -> whether it is copied; None where it depends on nothing that is promised.
RULES = {
    "pcm_s16le": {"matroska": True, "mp4": True, "mov": True, "mpegts": False},
    "flac": {"matroska": True, "mp4": True, "mov": False, "mpegts": False},
    "libopus": {"matroska": True, "mp4": True, "mov": False, "mpegts": True},
    "aac": {"matroska": True, "mp4": True, "mov": True, "mpegts": True},
    "ac3": {"matroska": True, "mp4": True, "mov": True, "mpegts": True},
    "subrip": {"matroska": True, "mp4": False, "mov": False, "mpegts": False},
    "ass": {"matroska": True, "mp4": False, "mov": False, "mpegts": False},
    "attachment": {"matroska": True, "mp4": False, "mov": False, "mpegts": False},
    "cover": {"matroska": True, "mp4": True, "mov": False, "mpegts": False},
}
ENDINGS = {"matroska": ".mkv", "mp4": ".mp4", "mov": ".mov", "mpegts": ".ts"}


def source_with(path: Path, kind: str) -> Path:
    builder = Builder(path).video(50)
    match kind:
        case "subrip":
            return builder.text("subrip", TEXT).write()
        case "ass":
            return builder.text("ass", ASS).write()
        case "attachment":
            return builder.font("a.ttf", b"font" * 50).write()
        case "cover":
            return builder.cover().write()
        case _:
            return builder.sound(kind).write()


@pytest.mark.parametrize(("kind", "container_format"), [(kind, name) for kind, rule in RULES.items() for name in rule])
def test_d2_a_stated_rule_and_never_a_failure_at_the_end(tmp_path: Path, job, kind: str, container_format: str) -> None:
    source, result = source_with(tmp_path / "in.mkv", kind), tmp_path / f"out{ENDINGS[container_format]}"
    if RULES[kind][container_format]:
        assert [s["action"] for s in job(source, result)["streams"]] == ["upscale", "copy"]
    else:
        with pytest.raises(ConfigError, match=rf"{container_format} cannot hold stream 1 .*--drop-incompatible"):
            job(source, result)
        # The advice that the error gives.
        assert [s["action"] for s in job(source, result, drop_incompatible=True)["streams"]] == ["upscale", "drop"]
    assert result.exists()


def test_more_frames_a_second_than_an_encoder_takes_are_laid_to_the_encoder(tmp_path: Path, job) -> None:
    source = write_images(tmp_path / "in", 3)
    for rate in ("240.0001", "300"):
        with pytest.raises(
            ConfigError, match=f"^libsvtav1 takes at most 240 frames a second, not {rate}; choose another --codec"
        ):
            job(source, tmp_path / "out.mkv", codec="libsvtav1", rate=rate)
    assert job(source, tmp_path / "out.mkv", codec="libsvtav1", rate="240")["frames_out"] == 3
    assert job(source, tmp_path / "out.mkv", codec="libx265", rate="300")["frames_out"] == 3


def test_d2_happens_before_the_source_is_decoded_and_within_10_s(tmp_path: Path) -> None:
    phases: list[str] = []

    class Noting(Listening):
        def phase(self, name: str, total: int | None) -> None:
            phases.append(name)

    source, started = rich_mkv(tmp_path / "in.mkv"), time.monotonic()
    with pytest.raises(ConfigError, match="cannot hold stream 3"):
        upscale_video(str(source), str(tmp_path / "out.mp4"), VideoConfig(model="nearest-x2"), local.run_units, Noting())
    assert time.monotonic() - started < 10
    assert phases == []


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1", "ffv1"])
@pytest.mark.parametrize("ending", [ending for ending in FORMATS if ending != ".gif"])
def test_d2_what_the_dry_mux_takes_the_muxer_takes(tmp_path: Path, job, codec: str, ending: str) -> None:
    audio = "libopus" if ending == ".webm" else "aac"
    source, result = Builder(tmp_path / "in.mkv").video(5).sound(audio, 0.2).write(), tmp_path / f"out{ending}"
    accepted = ending not in (".ts", ".mov") or codec in ("libx264", "libx265")
    if ending == ".webm":
        accepted = codec == "libsvtav1"
    if not accepted:
        with pytest.raises(ConfigError, match=rf"cannot hold {codec} video.*; choose \.mkv or another --codec"):
            job(source, result, codec=codec)
        return
    assert [s["action"] for s in job(source, result, codec=codec)["streams"]] == ["upscale", "copy"]
    with av.open(str(result)) as container:
        assert [s.type for s in container.streams] == ["video", "audio"]
        if codec == "libx265" and ending != ".mkv" and ending != ".ts":
            assert container.streams.video[0].codec_context.codec_tag == "hvc1"


@pytest.mark.parametrize("codec", ["subrip", "ass"])
def test_d2_text_that_loses_style_is_converted_with_consent_only(tmp_path: Path, job, codec: str) -> None:
    source, result = source_with(tmp_path / "in.mkv", codec), tmp_path / "out.mp4"
    with pytest.raises(ConfigError, match="--convert-subtitles"):
        job(source, result)
    (_, text) = job(source, result, convert_subtitles=True)["streams"]
    assert (text["action"], text["reason"].startswith("to mov_text")) == ("convert", True)
    with av.open(str(result)) as container:
        shown = [b"".join(s.dialogue for s in packet.decode()) for packet in container.demux(subtitles=0) if packet.size > 2]
    assert shown == ([b"Guten Tag", b"{\\i1}Ende"] if codec == "subrip" else [b"Schild"])


def test_d2_what_loses_nothing_is_converted_by_itself_and_said(tmp_path: Path, job) -> None:
    source = Builder(tmp_path / "in.mkv").video(50).text("subrip", TEXT, language="deu").write()
    job(source, tmp_path / "text.mp4", convert_subtitles=True)

    report = job(tmp_path / "text.mp4", tmp_path / "back.mkv")

    assert report["streams"][1]["action"] == "convert"
    assert any("to subrip" in line for line in report["warnings"])
    assert digests(tmp_path / "back.mkv")[1] == digests(source)[1]  # the italics too
    assert packet_times(tmp_path / "back.mkv", 1) == packet_times(source, 1)
    with av.open(str(tmp_path / "back.mkv")) as container:
        assert container.streams[1].metadata["language"] == "deu"


@pytest.mark.parametrize("after", ["mkv", "mp4", "mov"])
def test_d2_d3_a_timecode_track_is_kept(tmp_path: Path, job, after: str) -> None:
    source = Builder(tmp_path / "in.mov").video(25, timecode="01:02:03:04").write()
    report = job(source, tmp_path / f"out.{after}")
    assert [s["action"] for s in report["streams"]] == ["upscale", "rewrite"]
    with av.open(str(tmp_path / f"out.{after}")) as container:
        tags = {key.lower(): value for key, value in container.streams[0].metadata.items()}
        assert tags["timecode"] == "01:02:03:04"
        assert len(container.streams) == (1 if after == "mkv" else 2)


def test_d2_a_timecode_that_a_container_cannot_hold_is_said_to_be_dropped(tmp_path: Path, job) -> None:
    source = Builder(tmp_path / "in.mov").video(25, timecode="01:02:03:04").write()
    report = job(source, tmp_path / "out.ts")
    assert [s["action"] for s in report["streams"]] == ["upscale", "drop"]
    assert any("tags of stream 0 that mpegts cannot hold: timecode" in line for line in report["warnings"])


@pytest.mark.parametrize("after", ["mov", "mkv", "ts"])
def test_d2_a_files_timecode_that_becomes_a_track_is_not_said_to_be_lost(tmp_path: Path, job, after: str) -> None:
    source = Builder(tmp_path / "in.mxf").video(25).tags(timecode="01:02:03:04").write()
    with av.open(str(source)) as container:
        assert container.metadata["timecode"] == "01:02:03:04"
    report = job(source, tmp_path / f"out.{after}")
    lost = [line for line in report["warnings"] if line.startswith("tags of the file")]
    assert any("timecode" in line for line in lost) == (after == "ts")
    checks = {check.name: check for check in compare(*(describe(str(p), "") for p in (source, tmp_path / f"out.{after}")))}
    assert ("timecode" in checks["tags of the file"].detail) == (after == "ts")


@pytest.mark.parametrize("after", ["mkv", "mp4"])
def test_d2_a_chapter_track_of_a_real_file_is_written_anew(tmp_path: Path, shared: Path, job, after: str) -> None:
    report = job(shared / "data/video/chapters_3_quicktime.mp4", tmp_path / f"out.{after}", model="identity")
    assert [s["action"] for s in report["streams"]] == ["upscale", "copy", "rewrite"]
    with av.open(str(tmp_path / f"out.{after}")) as container:
        assert [c["metadata"]["title"] for c in container.chapters()] == ["Chapter 1", "Chapter 2", "Chapter 3"]


def test_d2_bitmap_subtitles_of_a_real_file_do_not_go_into_an_mp4(tmp_path: Path, shared: Path, job) -> None:
    with pytest.raises(ConfigError, match=r"mp4 cannot hold stream 2 \(subtitle, pgssub\); choose an \.mkv destination"):
        job(shared / "data/video/subs_pgs_ac3.mkv", tmp_path / "out.mp4", convert_subtitles=True)


def test_d2_takes_a_stream_that_begins_late_by_its_header(tmp_path: Path) -> None:
    source = Builder(tmp_path / "in.mkv").video(25).text("subrip", [(60_000, 61_000, "spät")]).write()
    plans, _ = plan_streams(str(source), "in.mkv", VideoConfig(), "matroska")
    assert [plan.action for plan in plans] == ["upscale", "copy"]
