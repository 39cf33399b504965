"""Where the streams lie against each other, and in the file: statements D3, D4 and D5."""

from __future__ import annotations

import struct
from fractions import Fraction
from itertools import groupby, pairwise
from pathlib import Path

import av
import pytest
from av.stream import Disposition

from pipeline.video.interleave import in_time_order
from tests.media import numbers, times
from tests.sources import Builder, digests, heard_from, packet_times

SAMPLE, MILLISECOND = Fraction(1, 48000), Fraction(1, 1000)


def longest_run_s(path: Path) -> Fraction:
    """The longest time that one stream has in the file before another comes."""
    with av.open(str(path)) as container:
        packets = [(p.pos, p.stream_index, (p.pts or 0) * p.time_base) for p in container.demux() if p.size]
    runs = [[time for _, _, time in run] for _, run in groupby(sorted(packets), key=lambda packet: packet[1])]
    return max(max(run) - min(run) for run in runs)


@pytest.mark.parametrize("after", ["mkv", "mp4"])
def test_d3_no_stream_more_than_a_second_back_to_back(tmp_path: Path, job, after: str) -> None:
    builder = Builder(tmp_path / "in.mkv", {"max_interleave_delta": "1"})
    source = builder.video(100).sound("aac", 4).sound("ac3", 4).write(interleaved=False)
    assert longest_run_s(source) > 3

    job(source, tmp_path / f"out.{after}")

    assert longest_run_s(tmp_path / f"out.{after}") < 1
    if after == "mkv":
        assert digests(tmp_path / "out.mkv")[1:] == digests(source)[1:]


@pytest.mark.parametrize("after", ["mkv", "mp4"])
def test_d3_not_even_where_one_stream_has_gaps(tmp_path: Path, job, after: str) -> None:
    source = tmp_path / "in.mkv"
    Builder(source).video(100).sound("aac", 4).sound("ac3", 0.5, start_s=3).text("subrip", [(3500, 3900, "Ende")]).write()
    job(source, tmp_path / f"out.{after}", convert_subtitles=True)
    assert longest_run_s(tmp_path / f"out.{after}") < 1


def test_d3_what_waits_for_another_stream_is_bounded(tmp_path: Path) -> None:
    source = Builder(tmp_path / "in.mkv", {"max_interleave_delta": "1"}).sound("aac").sound("ac3").write(interleaved=False)
    with av.open(str(source)) as container:
        ordered = [p.stream_index for p in in_time_order((p for p in container.demux() if p.size), 2)]
    with av.open(str(source)) as container:
        hurried = [p.stream_index for p in in_time_order((p for p in container.demux() if p.size), 2, look_ahead=500)]
    assert sorted(ordered) == sorted(hurried)
    assert max(len(list(run)) for _, run in groupby(ordered)) < 5
    assert max(len(list(run)) for _, run in groupby(hurried)) > 20


@pytest.mark.parametrize(("ending", "brand"), [("mp4", b"isom"), ("mov", b"qt  ")])
def test_d3_output_is_faststart_and_ftyp_brand_ok(tmp_path: Path, job, ending: str, brand: bytes) -> None:
    source, result = Builder(tmp_path / "in.mkv").video().sound("aac").write(), tmp_path / f"out.{ending}"
    job(source, result)
    content = result.read_bytes()
    assert content[4:12] == b"ftyp" + brand
    assert content.index(b"moov") < content.index(b"mdat")


@pytest.mark.parametrize("codec", ["aac", "libopus"])
@pytest.mark.parametrize(("before", "after"), [("mp4", "mp4"), ("mkv", "mkv"), ("mp4", "mkv"), ("mkv", "mp4")])
def test_d4_first_audio_sample_aligned(tmp_path: Path, job, codec: str, before: str, after: str) -> None:
    source, result = Builder(tmp_path / f"in.{before}").video().sound(codec).write(), tmp_path / f"out.{after}"

    job(source, result)

    (start_before, heard_before), (start_after, heard_after) = heard_from(source), heard_from(result)
    tolerance = SAMPLE if after == "mp4" else MILLISECOND / 2
    assert abs(start_after - start_before) <= tolerance
    assert abs(start_after) <= tolerance  # as the encoder was given it
    if (codec, before, after) == ("libopus", "mkv", "mp4"):
        heard_after -= 648  # FFmpeg reads no end from an mp4 of Opus; the duration states it
    assert heard_after == heard_before
    assert digests(result)[1] == digests(source)[1]
    assert skipped(result) == skipped(source)[: len(skipped(result))]


def skipped(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.has_sidedata("skip_samples")]
        return [bytes(packet.get_sidedata("skip_samples")) for packet in packets]


@pytest.mark.parametrize("codec", ["aac", "ac3", "flac"])
def test_d4_times_that_matroska_rounded_are_whole_frames_of_samples_again_in_an_mp4(tmp_path: Path, job, codec: str) -> None:
    source, result = Builder(tmp_path / "in.mkv").video().sound(codec, rate=44100).write(), tmp_path / "out.mp4"
    job(source, result)
    with av.open(str(result)) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.size]
        assert packets[0].time_base == Fraction(1, 44100)
        steps = {b.pts - a.pts for a, b in pairwise(packets[:-1])}
    assert len(steps) == 1


def test_d4_sound_of_flac_is_as_long_in_an_mp4_as_its_samples(tmp_path: Path, job) -> None:
    source = Builder(tmp_path / "in.mkv").video(6).sound("flac", 0.24).write()
    job(source, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.audio[0].duration * container.streams.audio[0].time_base == Fraction(24, 100)


@pytest.mark.parametrize("after", ["mkv", "mp4"])
@pytest.mark.parametrize("before", ["mkv", "mp4"])
def test_d5_audio_starting_2_s_late_and_longer_than_the_video(tmp_path: Path, job, before: str, after: str) -> None:
    source, result = tmp_path / f"in.{before}", tmp_path / f"out.{after}"
    Builder(source).video(75).sound("flac", 3, start_s=2).write()
    job(source, result)
    start, heard = heard_from(source)
    assert abs(start - 2) <= Fraction(1, 100)  # the coder's own delay
    assert abs(heard_from(result)[0] - start) <= (MILLISECOND / 2 if "mkv" in (before, after) else SAMPLE)
    assert heard_from(result)[1] == heard > 2 * 48000
    assert digests(result)[1] == digests(source)[1]
    assert len(numbers(result, 2)) == 75


@pytest.mark.parametrize("after", ["mp4", "mov"])
@pytest.mark.parametrize("codec", ["aac", "ac3"])
@pytest.mark.parametrize("start_s", [0.01, 2])
def test_d5_priming_of_late_sound_is_heard_nowhere(tmp_path: Path, job, after: str, codec: str, start_s: float) -> None:
    source, result, again = tmp_path / "in.mkv", tmp_path / f"out.{after}", tmp_path / f"again.{after}"
    Builder(source).video().text("subrip", [(100, 900, "a")]).sound(codec, 1, start_s=start_s).sound("aac", 1).write()
    job(source, result, convert_subtitles=True)
    job(result, again)
    start, heard = heard_from(source)
    assert abs(start - Fraction(start_s)) <= MILLISECOND / 2
    for path in (result, again):
        assert abs(heard_from(path)[0] - start) <= MILLISECOND / 2  # Matroska's
        assert heard_from(path)[1] == heard
        assert len(numbers(path, 2 if path == result else 4)) == 50
    assert heard_from(again) == heard_from(result)
    content = result.read_bytes()
    ticks, duration = struct.unpack_from(">II", content, content.index(b"mvhd") + 16)
    assert abs(Fraction(duration, ticks) - max(2, heard_from(result)[0] + heard * SAMPLE)) <= SAMPLE


@pytest.mark.parametrize("after", ["mkv", "mp4"])
@pytest.mark.parametrize("before", ["mkv", "mp4"])
@pytest.mark.parametrize("codec", ["flac", "ac3"])
def test_d5_video_starting_later_than_audio(tmp_path: Path, job, before: str, after: str, codec: str) -> None:
    source, result = tmp_path / f"in.{before}", tmp_path / f"out.{after}"
    Builder(source).video(25, start_s=0.5).sound(codec, 2).write()
    job(source, result)
    start, _ = heard_from(source)
    assert start < -Fraction(2, 5)
    assert abs(heard_from(result)[0] - start) <= (MILLISECOND if "mkv" in (before, after) else SAMPLE)
    assert [round(t * 1000) for t in times(result)] == [round(t * 1000) for t in times(source)]


def test_d5_no_audio_and_the_subtitles_are_kept(tmp_path: Path, job) -> None:
    source = Builder(tmp_path / "in.mkv").video().text("subrip", [(100, 900, "a"), (900, 1000, "b")]).write()
    report = job(source, tmp_path / "out.mkv")
    assert [s["action"] for s in report["streams"]] == ["upscale", "copy"]
    assert digests(tmp_path / "out.mkv")[1] == digests(source)[1]
    assert packet_times(tmp_path / "out.mkv", 1) == packet_times(source, 1)


def test_d3_what_does_not_rise_in_time_is_moved_by_a_tick_and_said(tmp_path: Path, job) -> None:
    lines = [(500, 900, "a"), (500, 1000, "b"), (700, 900, "c")]
    source = Builder(tmp_path / "in.mkv").video().text("subrip", lines, Disposition.default).write()
    said = job(source, tmp_path / "out.mp4", convert_subtitles=True)["warnings"]
    assert "stream 1: 1 of 3 packets did not rise in time and were moved up by a tick or more" in said
    assert job(source, tmp_path / "out.mkv")["warnings"] == []  # Matroska takes equal times
