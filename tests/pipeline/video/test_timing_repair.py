"""Statements A3 to A5: clocks that wrap or jump, decoding from a seek, and damage that is repaired with consent and listed."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import pytest

from pipeline import local
from pipeline.errors import MediaError
from pipeline.inputs import open_input
from pipeline.video.compare import compare
from pipeline.video.describe import describe
from pipeline.video.description import Description
from pipeline.video.frames import checksum
from pipeline.video.probe import probe
from pipeline.video.reader import decode, read_frames, seek_points
from tests.media import decoded, numbers, payloads, times, write_video

H264 = {"g": "12", "bf": "2"}
FRAME = Fraction(1, 25)


def repacked(source: Path, target: Path, change: Callable[[list[Any]], list[Any]] = lambda p: p, **options: str) -> Path:
    """The same streams in another file; ``change`` takes all packets and gives those to write."""
    with av.open(str(source)) as old, av.open(str(target), "w", options=options) as new:
        copies = {stream.index: new.add_stream_from_template(stream, opaque=True) for stream in old.streams}
        for packet in change([packet for packet in old.demux() if packet.size]):
            packet.stream = copies[packet.stream.index]
            new.mux(packet)
    return target


def part(tmp_path: Path, start_s: str = "0", name: str = "part.ts") -> Path:
    """Two seconds of a transport stream with sound, whose clock begins at ``start_s``."""
    plain = write_video(tmp_path / "plain.ts", 50, options=H264, with_audio=True)
    return repacked(plain, tmp_path / name, output_ts_offset=start_s)


def offset_s(description: Description, packet: int, frame: int) -> Fraction:
    """From a frame to a packet of the sound."""
    video, sound = description.streams
    return sound.packet_pts[packet] * sound.time_base - video.shown[frame] * video.time_base


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("before_wrap_s", ["0.5", "1.5"])
def test_a3_a_clock_that_wraps_at_33_bits_is_exact(tmp_path: Path, job, suffix: str, before_wrap_s: str) -> None:
    source = part(tmp_path, str(float(2**33 / 90000 - float(before_wrap_s))))
    report = job(source, tmp_path / f"out.{suffix}")
    assert (report["exit_code"], report["warnings"]) == (0, [])
    assert numbers(tmp_path / f"out.{suffix}", scale=2) == list(range(50))
    before, after = (describe(str(path), "") for path in (source, tmp_path / f"out.{suffix}"))
    assert [c for c in compare(before, after) if c.status == "differs" and "start" not in c.name and "time" in c.name] == []
    assert abs(offset_s(before, 0, 0) - offset_s(after, 0, 0)) <= Fraction(1, 1000 if suffix == "mkv" else 48000)
    if suffix != "ts":
        assert after.streams[0].shown[0] * after.streams[0].time_base < 1  # not 26 hours


@pytest.mark.parametrize("start_s", ["0", "40", "300"])  # farther back than a minute FFmpeg takes for a wrap
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a3_joined_recordings_are_refused_by_name_or_made_to_go_on(tmp_path: Path, job, start_s: str, suffix: str) -> None:
    source = tmp_path / "in.ts"
    source.write_bytes(part(tmp_path, start_s).read_bytes() + part(tmp_path).read_bytes())
    with pytest.raises(MediaError, match=r"frame times jump back by .* s at frame 50, the packet of time 7200 ticks"):
        job(source, tmp_path / f"out.{suffix}")
    assert not (tmp_path / f"out.{suffix}").exists()

    report = job(source, tmp_path / f"out.{suffix}", on_decode_error="repeat")

    assert (report["exit_code"], report["frames_out"]) == (3, 100)
    assert [(jump["frame"], jump["was"]) for jump in report["clock_jumps"]] == [(50, 7200)]
    assert numbers(tmp_path / f"out.{suffix}", scale=2) == list(range(50)) * 2
    assert payloads(tmp_path / f"out.{suffix}", "audio") == payloads(tmp_path / "part.ts", "audio") * 2 or suffix != "ts"
    seen = times(tmp_path / f"out.{suffix}")
    tick = Fraction(1, 1000) if suffix == "mkv" else 0
    assert all(abs(b - a - FRAME) <= tick for i, (a, b) in enumerate(itertools.pairwise(seen)) if i != 49)
    assert FRAME <= seen[50] - seen[49] < 2 * FRAME  # the sound of the first part ends before that of the second begins
    after = describe(str(tmp_path / f"out.{suffix}"), "")
    num_sound = len(after.streams[1].packet_pts) // 2
    assert abs(offset_s(after, num_sound, 50) - offset_s(after, 0, 0)) <= Fraction(1, 1000 if suffix == "mkv" else 48000)


def test_a3_a_gap_is_a_pause_that_is_listed_and_kept(tmp_path: Path, job) -> None:
    first, later = part(tmp_path, "0", "a.ts"), part(tmp_path, "30", "b.ts")
    source = tmp_path / "in.ts"
    source.write_bytes(first.read_bytes() + later.read_bytes())
    report = job(source, tmp_path / "out.mkv")
    assert report["exit_code"] == 0
    assert [pause["frame"] for pause in report["pauses"]] == [49]
    assert any("the longest frame 49 at 1.960 s for 28.040 s; they are kept so" in line for line in report["warnings"])
    assert times(tmp_path / "out.mkv")[50] - times(tmp_path / "out.mkv")[49] == Fraction(28_040, 1000)


def test_a3_sound_that_jumps_back_alone_is_refused_before_any_work(tmp_path: Path, job) -> None:
    def set_back(packets: list[Any]) -> list[Any]:
        sound = [p for p in packets if p.stream.type == "audio"]
        pictures = [p for p in packets if p.stream.type == "video"]
        return [*sound, *sound[:20], *pictures]

    plain = write_video(tmp_path / "plain.ts", 50, options=H264, with_audio=True)
    source = tmp_path / "in.ts"
    with av.open(str(plain)) as container:
        order = set_back([packet for packet in container.demux() if packet.size])
    assert len(order) > 50
    # FFmpeg writes no such file, so two are joined of which the second has no picture.
    sound_only = tmp_path / "sound.ts"
    with av.open(str(plain)) as old, av.open(str(sound_only), "w") as new:
        copies = {stream.index: new.add_stream_from_template(stream, opaque=True) for stream in old.streams}
        for packet in old.demux(audio=0):
            if packet.size:
                packet.stream = copies[packet.stream.index]
                new.mux(packet)
    source.write_bytes(plain.read_bytes() + sound_only.read_bytes())
    with pytest.raises(MediaError, match="0 times in the picture and 1 times in stream 1"):
        job(source, tmp_path / "out.mkv", on_decode_error="repeat")


def test_times_that_stand_still_are_moved_by_a_tick_and_listed(tmp_path: Path, job) -> None:
    def stand_still(packets: list[Any]) -> list[Any]:
        packets[20].pts = packets[19].pts
        packets[20].dts = packets[19].dts
        return packets

    plain = write_video(tmp_path / "plain.mkv", 50, options={"g": "12", "bf": "0"})
    source = repacked(plain, tmp_path / "in.mkv", stand_still)
    report = job(source, tmp_path / "out.mkv")
    assert report["num_times_repaired"] == 1
    assert report["times_repaired"] == [{"frame": 20, "was": 760, "now": 761}]
    assert numbers(tmp_path / "out.mkv", scale=2) == list(range(50))
    assert times(tmp_path / "out.mkv")[19:22] == [Fraction(t, 1000) for t in (760, 761, 840)]


SEEKS: dict[str, tuple[str, dict[str, Any]]] = {
    "h264 IDR": ("in.mp4", {"options": {"g": "12", "bf": "3"}}),
    "h264 open GOP": ("in.mp4", {"options": {"g": "12", "bf": "3", "x264-params": "open-gop=1"}}),
    "h264 open GOP ts": ("in.ts", {"options": {"g": "12", "bf": "3", "x264-params": "open-gop=1"}}),
    "h264 intra refresh": ("in.mkv", {"options": {"g": "12", "bf": "0", "x264-params": "intra-refresh=1"}}),  # recovery points
    "hevc CRA mkv": (
        "in.mkv",
        {"codec": "libx265", "options": {"x265-params": "keyint=12:bframes=3:open-gop=1:log-level=error"}},
    ),
    "hevc CRA ts": (
        "in.ts",
        {"codec": "libx265", "options": {"x265-params": "keyint=12:bframes=3:open-gop=1:log-level=error"}},
    ),
    "vp9 hidden frames": (
        "in.webm",
        {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "g": "12", "auto-alt-ref": "1", "lag-in-frames": "10"}},
    ),
    "av1": ("in.mkv", {"codec": "libsvtav1", "options": {"preset": "12", "g": "12"}}),
    "mpeg2 open GOP": ("in.ts", {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}}),
    "mpeg4 avi": ("in.avi", {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}}),
}


@pytest.mark.parametrize("name", SEEKS)
def test_a4_decoding_from_a_seek_gives_the_planes_of_sequential_decoding(tmp_path: Path, name: str) -> None:
    file, settings = SEEKS[name]
    source = write_video(tmp_path / file, 90, **settings)
    info, timeline = probe(str(source), source.name)
    sums = [checksum(frame) for frame in decoded(source)]
    assert timeline.checksum.tolist() == sums
    for start in (0, 13, 24, 37, 60, 71, 89):
        stop = min(start + 15, 90)
        frames = read_frames(partial(open_input, str(source)), source.name, info, timeline, start, stop)
        assert [(index, checksum(frame)) for index, frame in frames] == list(enumerate(sums))[start:stop]
    if name != "h264 intra refresh":  # which has one key frame
        assert seek_points(timeline, 89)[0] is not None


def shown_twice_at_once(packets: list[Any]) -> list[Any]:
    packets[40].pts = packets[40].dts = packets[39].pts
    return packets


def test_a4_times_that_had_to_be_mended_are_sought_by_as_they_were(tmp_path: Path) -> None:
    plain = write_video(tmp_path / "plain.mkv", 90, options={"g": "12", "bf": "0"})
    wrapping = write_video(tmp_path / "plain.ts", 90, options=H264)
    sources = [
        repacked(plain, tmp_path / "twice.mkv", shown_twice_at_once),
        repacked(wrapping, tmp_path / "wraps.ts", output_ts_offset=str(float(2**33 / 90000 - 1))),
    ]
    for source in sources:
        info, timeline = probe(str(source), source.name)
        passed: list[None] = []
        frames = read_frames(
            partial(open_input, str(source)), source.name, info, timeline, 80, 90, partial(passed.append, None)
        )
        assert [(index, checksum(frame)) for index, frame in frames] == list(enumerate(timeline.checksum))[80:]
        assert len(passed) < 24  # of the 80 before


def test_a4_a_long_way_to_a_segment_is_no_silence(tmp_path: Path, job, monkeypatch) -> None:
    """Frames without times can only be counted from the start."""
    monkeypatch.setattr("pipeline.video.segment.PULSE_S", 0.01)
    monkeypatch.setattr("pipeline.video.reader.decode", lambda *args: (time.sleep(0.002) or frame for frame in decode(*args)))
    events: list[Any] = []
    source = write_video(tmp_path / "in.h264", 75, options=H264)
    job(source, tmp_path / "out.mkv", lambda *args: local.run_units(*args[:-1], events.append))
    told = Counter(event.unit_id for event in events if event.kind == "progress" and event.items_done == 0)
    assert max(told.values()) > 3


def test_a4_a_range_may_begin_at_a_repeated_frame(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", 60, options=H264)
    info, timeline = probe(str(source), source.name)
    timeline.repeated[30:32] = True
    frames = read_frames(partial(open_input, str(source)), source.name, info, timeline, 31, 34)
    assert [(index, checksum(frame)) for index, frame in frames] == [
        (i, timeline.checksum[j]) for i, j in ((31, 29), (32, 32), (33, 33))
    ]


def test_a5_what_conceals_damage_need_not_be_what_it_was_at_first(tmp_path: Path) -> None:
    """H.264 conceals with what is left over in its buffers. Without damage, other samples mean another file."""
    source = write_video(tmp_path / "in.mp4", 60, options=H264)
    info, timeline = probe(str(source), source.name)
    timeline.checksum[40] ^= 1
    damaged = replace(info, damage=("frame 40 at 1.600 s is damaged",))
    frames = read_frames(partial(open_input, str(source)), source.name, damaged, timeline, 36, 48)
    assert [index for index, _ in frames] == list(range(36, 48))
    with pytest.raises(MediaError, match="frame 40 decodes otherwise than it did at first; did the file change"):
        list(read_frames(partial(open_input, str(source)), source.name, info, timeline, 36, 48))


def test_a5_several_damaged_packets_keep_the_count_and_are_listed(tmp_path: Path, job) -> None:
    clean = write_video(tmp_path / "clean.mp4", 60, options={"g": "60", "bf": "0", "x264-params": "ref=1"}, with_audio=True)
    with av.open(str(clean)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        content, hit = bytearray(clean.read_bytes()), (20, 21, 40)
        for number in hit:
            packet = packets[number]
            content[packet.pos + 4 : packet.pos + packet.size] = b"\xff" * (packet.size - 4)
    source = tmp_path / "in.mp4"
    source.write_bytes(content)
    with pytest.raises(MediaError, match=r"0\.8\d\d s.*and \d more\); --on-decode-error repeat"):
        job(source, tmp_path / "out.mp4")

    report = job(source, tmp_path / "out.mp4", on_decode_error="repeat")

    assert (report["exit_code"], report["frames_out"]) == (3, 60)
    assert set(report["frames_repaired"]) <= set(hit)
    assert len(report["video"]["damage"]) >= len(hit)
    assert times(tmp_path / "out.mp4") == times(clean)
    assert payloads(tmp_path / "out.mp4", "audio") == payloads(clean, "audio")


def test_a5_packets_of_which_none_gives_a_frame_end_in_one_line(tmp_path: Path, job) -> None:
    whole = write_video(tmp_path / "whole.ts", 30, options={"g": "30", "bf": "0"}, with_audio=True)
    source = tmp_path / "in.ts"
    with av.open(str(whole)) as old, av.open(str(source), "w") as new:
        copies = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.size and (packet.stream.type == "audio" or not packet.is_keyframe):
                packet.stream = copies[packet.stream.index]
                new.mux(packet)
    with pytest.raises(MediaError, match=r"no frame of video stream 0 \(h264\) can be decoded"):
        job(source, tmp_path / "out.mkv")
