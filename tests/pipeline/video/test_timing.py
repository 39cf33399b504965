"""Statements A1 and A2: every frame at its exact time, the last as long as it was, sound where it was against the picture."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.video.assemble import movie_timescale
from pipeline.video.compare import compare
from pipeline.video.describe import describe
from pipeline.video.description import Description
from pipeline.video.editlist import edited_until
from tests.media import numbers, times, write_video

CODECS: dict[str, dict[str, Any]] = {
    "h264": {"codec": "libx264", "options": {"g": "12", "bf": "3", "x264-params": "b-pyramid=normal"}},
    "h264 open GOP": {"codec": "libx264", "options": {"g": "12", "bf": "3", "x264-params": "open-gop=1"}},
    "hevc open GOP": {
        "codec": "libx265",
        "options": {"preset": "ultrafast", "x265-params": "keyint=12:bframes=3:open-gop=1:log-level=error"},
    },
    "vp9": {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "g": "12", "auto-alt-ref": "1", "lag-in-frames": "10"}},
    "av1": {"codec": "libsvtav1", "options": {"preset": "12", "g": "12"}},
    "mpeg2": {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}},
    "mpeg4": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
}

# Where a codec may lie, and what it goes into.
PLACES = {
    "h264": ("mp4 > mp4", "mkv > mkv", "mov > mov", "ts > mp4", "ts > ts", "avi > mkv"),
    "h264 open GOP": ("mp4 > mkv", "mkv > mp4", "ts > mkv"),
    "hevc open GOP": ("mp4 > mp4", "mkv > mkv", "mov > mov", "ts > ts"),
    "vp9": ("webm > mkv", "mkv > mp4", "mp4 > mp4"),
    "av1": ("webm > mkv", "mkv > mkv", "mp4 > mp4"),
    "mpeg2": ("ts > mp4", "mkv > mkv", "mp4 > mp4", "avi > mkv"),
    "mpeg4": ("avi > mp4", "mp4 > mp4", "mkv > mkv", "mov > mov"),
}
CASES = [(codec, *place.split(" > ")) for codec, places in PLACES.items() for place in places]

VARIABLE = np.cumsum(np.random.default_rng(5).choice([20, 40, 41, 333], 40)).tolist()
TIMES: dict[str, dict[str, Any]] = {
    "25": {"rate": 25},
    "29.97": {"rate": Fraction(30000, 1001)},
    "23.976": {"rate": Fraction(24000, 1001)},
    "variable": {"pts": VARIABLE, "time_base": Fraction(1, 600)},
    "variable, 90 kHz": {"pts": [150 * t for t in VARIABLE], "time_base": Fraction(1, 90_000)},
}

# What the statements are about; labels and colours have tests of their own.
OF_TIME = ("frames", "frame times", "duration", "offset", "packet times", "samples", "priming", "damage")


def untimely(source: Path | Description, result: Path) -> list[str]:
    """The checks of ``swinir inspect --verify`` on time that do not hold."""
    before = source if isinstance(source, Description) else describe(str(source), "source")
    checks = compare(before, describe(str(result), "result"))
    return [str(c) for c in checks if c.status in ("differs", "lost") and any(word in c.name for word in OF_TIME)]


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_a1_constant_rates_keep_count_times_and_durations(tmp_path: Path, job, case: tuple[str, str, str]) -> None:
    codec, inside, outside = case
    rate = list(TIMES)[CASES.index(case) % 3]  # each codec meets each rate
    sound = inside != "webm"
    source = write_video(tmp_path / f"in.{inside}", 40, **CODECS[codec], **TIMES[rate], with_audio=sound)
    job(source, tmp_path / f"out.{outside}")
    assert numbers(tmp_path / f"out.{outside}", scale=2) == list(range(40))
    assert untimely(source, tmp_path / f"out.{outside}") == []


@pytest.mark.parametrize("name", ["variable", "variable, 90 kHz"])
@pytest.mark.parametrize("case", [c for c in CASES if "avi" not in c and not c[0].startswith("mpeg")], ids=" ".join)
def test_a1_variable_rates_keep_every_time_as_a_fraction(tmp_path: Path, job, case: tuple[str, str, str], name: str) -> None:
    codec, inside, outside = case
    source = write_video(tmp_path / f"in.{inside}", 40, **CODECS[codec], **TIMES[name])
    job(source, tmp_path / f"out.{outside}", preset=None)  # the encoder's own reordering
    assert untimely(source, tmp_path / f"out.{outside}") == []
    if inside == outside:
        assert times(tmp_path / f"out.{outside}") == times(source)


@pytest.mark.parametrize("num_frames", [1, 2])
@pytest.mark.parametrize("case", [c for c in CASES if c[0] in ("h264", "vp9", "mpeg2")], ids=" ".join)
def test_a1_one_frame_and_two(tmp_path: Path, job, case: tuple[str, str, str], num_frames: int) -> None:
    codec, inside, outside = case
    sound = inside == "ts"  # FFmpeg cannot open so small a transport stream
    source = write_video(tmp_path / f"in.{inside}", num_frames, **CODECS[codec], with_audio=sound)
    job(source, tmp_path / f"out.{outside}")
    assert untimely(source, tmp_path / f"out.{outside}") == []
    assert numbers(tmp_path / f"out.{outside}", scale=2) == list(range(num_frames))


def repacked(source: Path, target: Path, change=lambda packets: packets, **options: str) -> Path:
    """The same streams in another file; ``change`` takes all packets and gives those to write."""
    with av.open(str(source)) as old, av.open(str(target), "w", options=options) as new:
        copies = {stream.index: new.add_stream_from_template(stream, opaque=True) for stream in old.streams}
        for packet in change([packet for packet in old.demux() if packet.size]):
            packet.stream = copies[packet.stream.index]
            new.mux(packet)
    return target


@pytest.mark.parametrize("reordered", ["0", "3"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("preset", ["ultrafast", "medium"])  # with and without reordering in the result
def test_a1_a_last_frame_that_is_shown_long_stays_so(tmp_path: Path, job, reordered: str, suffix: str, preset: str) -> None:
    def lengthen(packets: list[Any]) -> list[Any]:
        for packet in packets:
            if packet is packets[-1] or packet.pts == max(p.pts for p in packets):
                packet.duration = int(Fraction(7, 5) / packet.time_base)
        return packets

    plain = write_video(tmp_path / "plain.mp4", 40, **TIMES["variable"], options={"bf": reordered, "g": "12"})
    source = repacked(plain, tmp_path / "in.mp4", lengthen)
    report = job(source, tmp_path / f"out.{suffix}", preset=preset)
    assert report["warnings"] == []  # a long last frame is not a file cut short
    assert untimely(source, tmp_path / f"out.{suffix}") == []
    video = describe(str(tmp_path / f"out.{suffix}"), "out").streams[0]
    assert video.end is not None
    assert abs((video.end - video.shown[-1]) * video.time_base - Fraction(7, 5)) <= Fraction(1, 1000)


LATE = [*range(0, 1200, 40), *range(4160, 16160, 3000)]  # steps of 40 ms, then of 3 s


@pytest.mark.parametrize("preset", ["ultrafast", "medium"])
@pytest.mark.parametrize("between", ["mp4", "mkv"])
def test_steps_that_grow_at_the_end_make_no_frame_longer(tmp_path: Path, job, between: str, preset: str) -> None:
    """The sum of an mp4's steps of decoding ends before the last frame is shown, where frames are reordered."""
    source = write_video(tmp_path / "in.mp4", 34, pts=LATE, time_base=Fraction(1, 1000), options={"bf": "2"})
    report = job(source, tmp_path / f"between.{between}", preset=preset)
    job(tmp_path / f"between.{between}", tmp_path / "out.mp4", preset=preset)
    assert report["video"]["duration_s"] == pytest.approx(13.2)
    for path in (source, tmp_path / f"between.{between}", tmp_path / "out.mp4"):
        video = describe(str(path), "").streams[0]
        assert video.end is not None
        assert float(video.end * video.time_base) == pytest.approx(13.2)
    assert untimely(source, tmp_path / "out.mp4") == []
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.duration * stream.time_base >= Fraction(132, 10)  # the lesser of its media's length and those steps


@given(st.binary(max_size=300), st.sampled_from([b"", b"\0\0\0\x08ftyp", b"\0\0\1\0moov\0\0\0\x20mvhd"]))
def test_an_index_of_any_bytes_says_nothing_or_something(data: bytes, before: bytes) -> None:
    file = io.BytesIO(before + data)
    assert all(end > 0 for end in edited_until(file).values())
    assert file.tell() == 0


def trimmed(source: Path, target: Path, start: Fraction) -> Path:
    """What ``ffmpeg -ss -c copy`` makes: from the key frame before ``start`` on, of which an edit list hides the beginning."""

    def cut(packets: list[Any]) -> list[Any]:
        kept = []
        for packet in packets:
            seconds = packet.pts * packet.time_base
            shift = int(start / packet.time_base)
            first_kept = start - Fraction(15, 25) if packet.stream.type == "video" else start - Fraction(1024, 48000)
            if seconds >= first_kept:
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                kept.append(packet)
        return kept

    return repacked(source, target, cut, avoid_negative_ts="disabled")


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_a2_a_trimmed_mp4_gives_the_75_frames_it_presents(tmp_path: Path, job, suffix: str) -> None:
    whole = write_video(tmp_path / "whole.mp4", 120, options={"g": "30", "bf": "0", "sc_threshold": "0"}, with_audio=True)
    source = trimmed(whole, tmp_path / "in.mp4", Fraction(45, 25))
    with av.open(str(source)) as container:
        video = container.streams.video[0]
        hidden = [packet.is_discard for packet in container.demux(video) if packet.size]
    assert (len(hidden), sum(hidden)) == (90, 15)

    job(source, tmp_path / f"out.{suffix}")

    assert numbers(tmp_path / f"out.{suffix}", scale=2) == list(range(45, 120))
    assert untimely(source, tmp_path / f"out.{suffix}") == []
    starts = [describe(str(path), "").streams for path in (source, tmp_path / f"out.{suffix}")]
    assert starts[0][0].shown[0] == starts[1][0].shown[0] == 0
    sound, copied = starts[0][1], starts[1][1]
    assert copied.shown[0] * copied.time_base == sound.shown[0] * sound.time_base  # 0 samples


def test_a2_aac_priming_stays_in_the_edit_list(tmp_path: Path, job) -> None:
    source = write_video(tmp_path / "in.mp4", 30, with_audio=True, rate=Fraction(24000, 1001))
    job(source, tmp_path / "out.mp4")
    before, after = (describe(str(path), "").streams[1] for path in (source, tmp_path / "out.mp4"))
    assert before.packet_pts[0] == after.packet_pts[0] == -1024
    assert before.skipped_samples == after.skipped_samples == (1024, 0)
    assert before.num_samples == after.num_samples


def test_sound_that_starts_between_two_milliseconds_stays_there(tmp_path: Path, job) -> None:
    def late(packets: list[Any]) -> list[Any]:
        for packet in packets:
            shift = 4801 if packet.stream.type == "audio" else 0
            packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
        return packets

    plain = write_video(tmp_path / "plain.mp4", 30, with_audio=True)
    source = repacked(plain, tmp_path / "in.mp4", late, movie_timescale="48000")
    job(source, tmp_path / "out.mp4")
    assert describe(str(source), "").streams[1].shown == describe(str(tmp_path / "out.mp4"), "").streams[1].shown == (3777,)


def test_edit_lists_count_in_a_unit_that_every_stream_can_be_counted_in() -> None:
    assert movie_timescale([12_800, 48_000]) == 192_000
    assert movie_timescale([24_000, 44_100, 90_000]) % 24_000 == 0
    assert movie_timescale([1_000_003, 999_983, 48_000]) < 2**31


def test_fragmented_mp4_is_read_like_any_other(tmp_path: Path, job) -> None:
    plain = write_video(tmp_path / "plain.mp4", 40, **CODECS["h264"], with_audio=True)
    source = repacked(plain, tmp_path / "in.mp4", movflags="frag_keyframe+delay_moov+default_base_moof")
    job(source, tmp_path / "out.mp4")
    assert untimely(source, tmp_path / "out.mp4") == []
    assert untimely(plain, tmp_path / "out.mp4") == []


def test_a_start_at_ten_seconds_is_kept(tmp_path: Path, job) -> None:
    def later(packets: list[Any]) -> list[Any]:
        for packet in packets:
            packet.pts, packet.dts = packet.pts + 10 / packet.time_base, packet.dts + 10 / packet.time_base
        return packets

    plain = write_video(tmp_path / "plain.mp4", 20, **CODECS["h264"], with_audio=True)
    source = repacked(plain, tmp_path / "in.mp4", later)
    for suffix in ("mp4", "mkv"):
        job(source, tmp_path / f"out.{suffix}")
        video = describe(str(tmp_path / f"out.{suffix}"), "").streams[0]
        assert video.shown[0] * video.time_base == 10
        assert untimely(source, tmp_path / f"out.{suffix}") == []
