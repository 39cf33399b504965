"""Damage of which decoders say nothing: lost transport packets, and checksums that fail."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path

import av
import pytest

from pipeline.errors import MediaError
from pipeline.video.describe import describe
from pipeline.video.integrity import crc, slices_of
from tests.media import numbers, payloads, write_video
from tests.sources import Builder

PACKET_BYTES = 188  # of MPEG-TS


def without_packets(source: Path, target: Path, stream: int, part: float, num: int = 1) -> Path:
    """``source`` without transport packets from one of a stream on that does not begin a frame, ``part`` of the way in."""
    data = source.read_bytes()
    with av.open(str(source)) as container:
        wanted = container.streams[stream].id
    packets = [data[at : at + PACKET_BYTES] for at in range(0, len(data), PACKET_BYTES)]
    first = int(part * len(packets))
    at = next(
        i
        for i in range(first, len(packets))
        if (packets[i][1] & 31) << 8 | packets[i][2] == wanted and not packets[i][1] & 0x40
    )
    target.write_bytes(b"".join(packets[:at] + packets[at + num :]))
    return target


@pytest.mark.parametrize("slices", ["4", "16"])
def test_slices_of_ffv1_are_found_and_their_checksums_hold(tmp_path: Path, slices: str) -> None:
    source = write_video(tmp_path / "in.mkv", 4, codec="ffv1", options={"level": "3", "slicecrc": "1", "slices": slices})
    with av.open(str(source)) as container:
        packets = [bytes(packet) for packet in container.demux() if packet.size]
    assert len(packets) == 4
    for data in packets:
        slices = slices_of(data)
        assert slices is not None
        assert b"".join(reversed(slices)) == data
        assert [crc(each) for each in slices] == [0] * len(slices)
        at = random.Random(len(data)).randrange(len(data) - 20)
        changed = slices_of(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert changed is not None
        assert sum(crc(each) != 0 for each in changed) == 1


@pytest.mark.parametrize("options", [{"level": "1"}, {"level": "3", "slicecrc": "0"}])
def test_without_checksums_there_is_nothing_to_hold(tmp_path: Path, job, options: dict[str, str]) -> None:
    source = write_video(tmp_path / "in.mkv", 4, codec="ffv1", options=options)
    with av.open(str(source)) as container:
        assert [slices_of(bytes(packet)) for packet in container.demux() if packet.size] == [None] * 4
    assert job(source, tmp_path / "out.mkv")["exit_code"] == 0


def test_a_checksum_that_fails_is_damage(tmp_path: Path, job) -> None:
    source = write_video(tmp_path / "in.mkv", 30, codec="ffv1")
    with av.open(str(source)) as container:
        packet = bytes(next(p for i, p in enumerate(container.demux()) if i == 15))
    data = source.read_bytes()
    at = data.index(packet) + len(packet) // 2
    source.write_bytes(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])
    with pytest.raises(MediaError, match=r"the packet at 0\.600 s fails its checksum; .*; --on-decode-error repeat goes on"):
        job(source, tmp_path / "out.mkv")
    report = job(source, tmp_path / "out.mkv", on_decode_error="repeat")
    assert (report["exit_code"], report["frames_out"]) == (3, 30)
    with source.open("rb") as file:
        assert describe(file, "in").damage == ("stream 0: 1 packets or frames are incomplete or fail their checksum",)


@pytest.mark.parametrize("num", [1, 3, 12, 40])
def test_lost_packets_of_video_are_damage(tmp_path: Path, job, num: int) -> None:
    write_video(tmp_path / "whole.ts", 50, size=(160, 120), with_audio=True)
    source = without_packets(tmp_path / "whole.ts", tmp_path / "in.ts", 0, 0.5, num)
    with pytest.raises(MediaError, match=r"is damaged|is incomplete, as its container says"):
        job(source, tmp_path / "out.mkv")
    (line,) = [line for line in describe(str(source), "in").damage if line.startswith("stream 0")]
    assert line.endswith("packets or frames are incomplete or fail their checksum")
    assert job(source, tmp_path / "out.mkv", on_decode_error="repeat")["exit_code"] == 3


def test_what_is_lost_before_a_table_of_programs_is_missed(tmp_path: Path, job) -> None:
    """They come ten times a second, and at the start of a segment, where counters begin anew."""
    source = write_video(tmp_path / "in.ts", 50, codec="libx265", size=(160, 120), options={"x265-params": "log-level=error"})
    data = source.read_bytes()
    packets = [data[at : at + PACKET_BYTES] for at in range(0, len(data), PACKET_BYTES)]
    with av.open(str(source)) as container:
        wanted = container.streams[0].id
    pids = [(packet[1] & 31) << 8 | packet[2] for packet in packets]
    at = next(
        i for i in range(len(pids) // 2, len(pids)) if pids[i] == wanted and pids[i + 1] != wanted and 0 in pids[i + 1 : i + 4]
    )
    source.write_bytes(b"".join(packets[:at] + packets[at + 1 :]))
    with pytest.raises(MediaError, match=r"is damaged|is incomplete, as its container says|cannot be decoded"):
        job(source, tmp_path / "out.mkv")
    assert any(line.startswith("stream 0") for line in describe(str(source), "in").damage)


def test_segments_that_were_joined_are_whole(tmp_path: Path, job) -> None:
    """As of a stream for the web: each segment counts its packets anew."""
    parts = [write_video(tmp_path / f"{i}.ts", 30, pts=range(30 * i, 30 * i + 30), time_base=Fraction(1, 25)) for i in range(3)]
    source = tmp_path / "in.ts"
    source.write_bytes(b"".join(part.read_bytes() for part in parts))
    with av.open(str(source)) as container:
        assert any(packet.is_corrupt for packet in container.demux(video=0))
    report = job(source, tmp_path / "out.mkv")
    assert (report["exit_code"], report["frames_out"]) == (0, 90)
    assert not describe(str(source), "in").damage


@pytest.mark.parametrize("part", [0.1, 0.8])
@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_lost_packet_of_sound_costs_that_packet_and_is_listed(tmp_path: Path, job, part: float, suffix: str) -> None:
    write_video(tmp_path / "whole.ts", 100, with_audio=True)
    source = without_packets(tmp_path / "whole.ts", tmp_path / "in.ts", 1, part)
    report = job(source, tmp_path / f"out{suffix}")
    assert numbers(tmp_path / f"out{suffix}", 2) == list(range(100))
    assert report["exit_code"] == 3
    assert "stream 1: 1 packets are damaged and are not in the result" in report["warnings"]


@pytest.mark.parametrize("number", [5, 50])
def test_ac3_that_an_mp4_would_not_take_is_left_out_and_listed(tmp_path: Path, job, number: int) -> None:
    source = Builder(tmp_path / "in.mkv").video(100).sound("ac3").write()
    with av.open(str(source)) as container:
        packet = bytes([p for p in container.demux(audio=0) if p.size][number])
    data = source.read_bytes()
    source.write_bytes(data.replace(packet, bytes(len(packet))))
    assert job(source, tmp_path / "out.mkv")["exit_code"] == 0, "Matroska takes it as it is"
    assert payloads(tmp_path / "out.mkv", "audio") == payloads(source, "audio")
    report = job(source, tmp_path / "out.mp4")
    assert (report["exit_code"], report["frames_out"]) == (3, 100)
    assert "stream 1: 1 packets are damaged and are not in the result" in report["warnings"]
