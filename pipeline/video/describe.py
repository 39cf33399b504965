"""Describing a media file: its pictures and sound decoded once, every packet hashed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, BinaryIO

import av
import av.error
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from pipeline.video.clock import WRAPPING
from pipeline.video.description import Description, Picture, StreamDescription
from pipeline.video.editlist import edited_until
from pipeline.video.frames import is_transparent
from pipeline.video.hdr import content_light, mastering_display
from pipeline.video.header import UNSTATED, read_header
from pipeline.video.integrity import PacketCheck
from pipeline.video.priming import skipped_samples
from pipeline.video.probe import is_cover, open_media, use_threads
from pipeline.video.streams import codec_of
from pipeline.video.tags import code_of, display_matrix, side_data
from pipeline.video.times import exact_times, jumps_back, unwrap
from pipeline.video.truncation import gif_is_cut, last_duration, stated_bytes, truncation

DYNAMIC_HDR = ("DYNAMIC_HDR_PLUS", "DYNAMIC_HDR_VIVID", "DOVI_METADATA", "DOVI_RPU_BUFFER")


@dataclass(slots=True)
class _Seen:
    """What the packets of one stream have shown so far."""

    packet_pts: list[int | None] = field(default_factory=list)
    hashes: list[int] = field(default_factory=list)
    num_packets: int = 0  # with those that hold nothing
    end_s: float = 0.0
    is_short: bool = False
    transparent: bool = False
    edited_until_s: Fraction | None = None
    skipped: list[int] = field(default_factory=lambda: [0, 0])
    shown: list[int | None] = field(default_factory=list)
    last_duration: int = 0
    num_samples: int = 0
    num_interlaced: int = 0
    num_bad: int = 0
    num_damaged: int = 0  # packets and frames that say so of themselves
    formats: dict[tuple[int, int, str], None] = field(default_factory=dict)
    first: av.VideoFrame | None = None
    chroma_location: str = UNSTATED
    mastering: tuple[str, ...] = ()
    light: tuple[int, ...] = ()
    side_data: set[str] = field(default_factory=set)


def describe(source: str | BinaryIO, name: str) -> Description:
    """Read the whole file once. MediaError where it cannot be opened; damage further on is listed, not raised."""
    declared_bytes, cut, edits = stated_bytes(source), gif_is_cut(source), edited_until(source)
    with open_media(source, name) as container:
        seen = {stream.index: _Seen() for stream in container.streams}
        for video in container.streams.video:
            seen[video.index].chroma_location = read_header(container, video.index).chroma_location
            seen[video.index].edited_until_s = edits.get(video.id)
        damage = [*_read(container, source, seen)]
        last_end_s = max((s.end_s for s in seen.values()), default=0.0)
        for video in container.streams.video:
            state = seen[video.index]
            short = [] if is_cover(video) else truncation(container, video, declared_bytes, cut, state.num_packets, last_end_s)
            state.is_short = bool(short)
            damage += [line for line in short if line not in damage]
        notes: list[str] = []
        streams = tuple(
            _conclude(stream, seen[stream.index], container.format.name, notes, damage)
            for stream in container.streams
            if not (is_chapter_track(stream) and container.chapters())
        )
        damage += [f"stream {index}: {s.num_bad} packets cannot be decoded" for index, s in seen.items() if s.num_bad]
        damage += [
            f"stream {index}: {s.num_damaged} packets or frames are incomplete or fail their checksum"
            for index, s in seen.items()
            if s.num_damaged
        ]
        return Description(
            name=name,
            container=container.format.name,
            duration=Fraction(container.duration, av.time_base) if container.duration else None,
            tags=dict(container.metadata),
            chapters=tuple(
                (c["start"] * tb, c["end"] * tb, c["metadata"].get("title", ""))
                for c in container.chapters()
                if (tb := c["time_base"])
            ),
            streams=streams,
            damage=tuple(damage),
            notes=tuple(notes),
        )


def _read(container: InputContainer, source: str | BinaryIO, seen: dict[int, _Seen]) -> Iterator[str]:
    for video in container.streams.video:
        use_threads(video, 0)
    packets = container.demux()
    checks = {stream.index: PacketCheck(stream, source) for stream in container.streams}
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.error.EOFError):
            return
        except av.error.FFmpegError as error:
            yield f"the file cannot be read to its end: {error.strerror or error}"
            return
        stream, state = packet.stream, seen[packet.stream.index]
        if packet.size:
            _note_packet(packet, state)
            state.num_damaged += bool(checks[stream.index].damage(packet))
        if stream.type in ("video", "audio") and not is_cover(stream) and stream.codec_context:
            try:
                for frame in packet.decode():
                    _note_frame(frame, stream.codec_context.name, state)
            except av.error.EOFError:
                pass
            except av.error.FFmpegError:
                state.num_bad += 1


def _note_packet(packet: av.Packet[Any], state: _Seen) -> None:
    data = payload(bytes(packet), packet.stream.codec_context.name if packet.stream.codec_context else "")
    state.num_packets += 1
    time = packet.pts if packet.pts is not None else packet.dts
    if time is not None and packet.time_base:
        state.end_s = max(state.end_s, float((time + (packet.duration or 0)) * packet.time_base))
    if not data:
        return
    state.packet_pts.append(time)
    state.hashes.append(int.from_bytes(hashlib.blake2b(data, digest_size=8).digest()))
    start, end = skipped_samples(packet)
    state.skipped[0] += start
    state.skipped[1] += end


def payload(data: bytes, codec: str) -> bytes:
    """A packet without what only its container wraps around it, so that equal content is equal in each.

    AAC in MPEG-TS has ADTS headers (ISO 13818-7, 6.2). H.264 and HEVC are units behind start codes or lengths, with parameter
    sets and delimiters in the stream or beside it. An mp4 fills gaps between subtitles with empty ones.
    """
    if codec == "aac" and len(data) > 7 and data[0] == 0xFF and data[1] & 0xF6 == 0xF0:
        return data[7 if data[1] & 1 else 9 :]
    if codec in ("h264", "hevc"):
        return b"\0\0\1".join(unit for unit in nal_units(data) if _is_slice(unit, codec)) or data
    if codec == "mov_text" and data[:2] == b"\0\0":
        return b""
    return data


def nal_units(data: bytes) -> list[bytes]:
    """The units of an H.264 or HEVC packet, behind start codes (Annex B) or 4-byte lengths."""
    if data.startswith((b"\0\0\1", b"\0\0\0\1")):
        return [unit.rstrip(b"\0") for unit in re.split(rb"\x00\x00\x01", data) if unit.rstrip(b"\0")]
    units, at = [], 0
    while at + 4 < len(data):
        size = int.from_bytes(data[at : at + 4])
        units.append(data[at + 4 : at + 4 + size].rstrip(b"\0"))
        at += 4 + size
    return units


def _is_slice(unit: bytes, codec: str) -> bool:
    if not unit:
        return False
    return 1 <= unit[0] & 31 <= 5 if codec == "h264" else unit[0] >> 1 & 63 < 32


def _note_frame(frame: Any, codec: str, state: _Seen) -> None:  # noqa: ANN401  (a frame of video or sound)
    if isinstance(frame, av.AudioFrame):
        if not state.num_samples:
            state.shown.append(frame.pts)
        state.num_samples += frame.samples
        return
    if not isinstance(frame, av.VideoFrame):
        return
    if state.first is None:
        state.first = frame
    state.shown.append(frame.pts)
    state.last_duration = frame.duration or 0
    state.transparent = state.transparent or is_transparent(frame)
    state.num_interlaced += bool(frame.interlaced_frame)
    state.num_damaged += bool(frame.is_corrupt)
    state.formats[frame.width, frame.height, frame.format.name] = None
    if frame.key_frame:
        entries = side_data(frame, codec)
        state.mastering = state.mastering or mastering_display(entries)
        state.light = state.light or content_light(entries)
        state.side_data.update(str(entry.type.name) for entry in entries)


def is_chapter_track(stream: Stream) -> bool:
    """Where an mp4 keeps the titles of its chapters, which FFmpeg reads as chapters and shows as an empty stream besides."""
    return stream.type == "data" and codec_of(stream) == "bin_data"


def _conclude(stream: Stream, seen: _Seen, container: str, notes: list[str], damage: list[str]) -> StreamDescription:
    context: Any = stream.codec_context
    hashes, kind = tuple(seen.hashes), "cover" if is_cover(stream) else stream.type or "unknown"
    if kind == "attachment":
        hashes = (int.from_bytes(hashlib.blake2b(stream.data, digest_size=8).digest()),)  # type: ignore[attr-defined]
    time_base = stream.time_base or Fraction(1, av.time_base)
    packet_pts = unwrap(seen.packet_pts) if container in WRAPPING else seen.packet_pts
    shown = [time for time in seen.shown if time is not None]
    end = None
    if seen.first is not None and isinstance(stream, VideoStream):
        shown, end = _times(stream, seen, container, notes, damage)
    return StreamDescription(
        index=stream.index,
        type=kind,
        codec=context.codec.canonical_name if context else getattr(stream, "name", None) or "unknown",
        time_base=time_base,
        tags=dict(stream.metadata),
        disposition=tuple(flag.name for flag in Disposition if flag & stream.disposition and flag.name),
        picture=None if seen.first is None else _picture(stream, seen.first, seen),
        shown=tuple(shown),
        end=end,
        sample_rate=context.sample_rate if kind == "audio" and context else None,
        layout=context.layout.name if kind == "audio" and context else None,
        num_samples=seen.num_samples,
        skipped_samples=(seen.skipped[0], seen.skipped[1]),
        packet_pts=tuple(time or 0 for time in packet_pts),
        hashes=hashes,
    )


def _times(stream: VideoStream, seen: _Seen, container: str, notes: list[str], damage: list[str]) -> tuple[list[int], int]:
    """Times of the frames, rising, and the end of the last one."""
    rate = stream.guessed_rate or stream.average_rate or Fraction(25)
    time_base = stream.time_base or Fraction(1, av.time_base)
    frame_ticks = 1 / (rate * time_base)
    seen_pts = unwrap(seen.shown) if container in WRAPPING else seen.shown
    trusted = container != "avi" or not stream.codec_context.has_b_frames
    if trusted and (jumps := jumps_back(seen_pts, frame_ticks)):
        damage.append(f"stream {stream.index}: frame times jump back at frame {jumps[0]}")
        shown = [time for time in seen_pts if time is not None]
    else:
        exact = exact_times(seen_pts, frame_ticks, trusted)
        notes += [f"stream {stream.index}: {guess}" for guess in exact.guesses]
        shown = [int(time) for time in exact.pts]
    last = seen.last_duration or (shown[-1] - shown[-2] if len(shown) > 1 else round(frame_ticks))
    last = last if seen.is_short else last_duration(container, stream, shown[-1], last, seen.edited_until_s)
    return shown, shown[-1] + max(1, last)


def _picture(stream: Stream, first: av.VideoFrame, seen: _Seen) -> Picture:
    context: Any = stream.codec_context
    form = first.format
    components = [component for component in form.components if not component.is_alpha]
    is_rgb = form.is_rgb or form.name == "pal8"
    kind = "rgb" if is_rgb else "gray" if len(components) == 1 else "yuv"
    chroma = (16 // form.chroma_width(16), 16 // form.chroma_height(16)) if kind == "yuv" else (1, 1)
    return Picture(
        width=first.width,
        height=first.height,
        pix_fmt=form.name,
        depth=max(component.bits for component in components),
        chroma=(chroma[0].bit_length() - 1, chroma[1].bit_length() - 1),
        kind=kind,
        alpha=seen.transparent or stream.metadata.get("alpha_mode") == "1",
        rate=stream.guessed_rate or stream.average_rate,
        sample_aspect_ratio=stream.sample_aspect_ratio or None,  # type: ignore[attr-defined]
        display_matrix=display_matrix(side_data(first, context.name)),
        color_range=int(first.color_range) or int(context.color_range),
        color_space=code_of(first.colorspace, context.colorspace),
        color_primaries=code_of(first.color_primaries, context.color_primaries),
        color_trc=code_of(first.color_trc, context.color_trc),
        chroma_location=seen.chroma_location,
        mastering=tuple(map(Fraction, seen.mastering)) or None,
        light=seen.light or None,
        dynamic_hdr=tuple(name for name in DYNAMIC_HDR if name in seen.side_data),
        num_interlaced=seen.num_interlaced,
        formats=tuple(seen.formats),
    )
