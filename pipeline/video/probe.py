"""What a video really holds, read by decoding it once: every frame's time and checksum, and what damage the decoder reports.

Headers lie (counts, rates, interlacing) and packets are not frames (edit lists, hidden frames, broken starts). A sequential
decode is the one truth about a file; it costs little beside the model. Workers decode by seeking and are held to its checksums.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, BinaryIO

import av
import av.error
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from pipeline.errors import MediaError
from pipeline.video.clock import WRAPPING, StreamClock, jump_lines, pause_lines, settle
from pipeline.video.combing import CombMeter
from pipeline.video.cropping import window_of
from pipeline.video.decoder import decoder_for
from pipeline.video.editlist import edited_until
from pipeline.video.frames import checksum
from pipeline.video.header import Header, read_header
from pipeline.video.info import VideoInfo
from pipeline.video.integrity import PacketCheck
from pipeline.video.scenes import SceneMeter
from pipeline.video.tags import TagMeter, code_of
from pipeline.video.timeline import Timeline, TimelineBuilder
from pipeline.video.truncation import gif_is_cut, last_duration, stated_bytes, truncation


@dataclass(slots=True)
class _Scan:
    """What the decode has seen so far."""

    timeline: TimelineBuilder = field(default_factory=TimelineBuilder)
    damage: list[str] = field(default_factory=list)
    sizes: set[tuple[int, int, str]] = field(default_factory=set)
    combs: CombMeter = field(default_factory=CombMeter)
    early_pts: list[int] = field(default_factory=list)  # of packets before the first picture
    packet_pts: set[int] = field(default_factory=set)
    num_packets: int = 0
    last_end_s: float = 0.0
    declared_bytes: int | None = None  # of a Matroska or AVI file
    is_cut: bool = False  # of a GIF
    edited_until_s: Fraction | None = None  # of an mp4
    clocks: dict[int, StreamClock] = field(default_factory=dict)  # of the other streams
    tags: TagMeter = field(default_factory=TagMeter)
    name_at: Callable[[int], str] | None = None  # of an image sequence: which file a byte belongs to
    scenes: SceneMeter = field(default_factory=SceneMeter)
    first: av.VideoFrame | None = None


def open_media(source: str | BinaryIO, name: str) -> InputContainer:
    """An input container, or MediaError in one line. ``name`` is what the user called the source."""
    try:
        return av.open(source, "r", metadata_errors="replace")
    except av.error.InvalidDataError as error:
        raise MediaError(f"{name}: not a readable video (no header that FFmpeg knows, or it is truncated)") from error
    except (av.error.FFmpegError, ValueError) as error:
        raise MediaError(f"{name}: cannot be opened: {_reason(error)}") from error


def is_cover(stream: Stream) -> bool:
    return bool(stream.disposition & Disposition.attached_pic)


def choose_video_stream(container: InputContainer, name: str, index: int | None = None) -> VideoStream:
    """The stream to upscale: the one asked for, else FFmpeg's best that is not cover art."""
    videos = [video for video in container.streams.video if not is_cover(video)]
    if index is not None:
        for video in videos:
            if video.index == index:
                return video
        have = ", ".join(str(v.index) for v in videos) or "none"
        raise MediaError(f"{name}: stream {index} is not a video stream to upscale; those are: {have}")
    if not videos:
        raise MediaError(f"{name}: holds no video stream")
    best = container.streams.best("video")
    return best if isinstance(best, VideoStream) and best in videos else videos[0]


def probe(
    source: str | BinaryIO, name: str, stream: int | None = None, on_frame: Callable[[int], None] = lambda _: None
) -> tuple[VideoInfo, Timeline]:
    """Decode the whole video once; what it is, and its frames in presentation order.

    Damage is listed in ``VideoInfo.damage``, and the timeline repeats a frame where one could not be decoded.
    Raises MediaError where nothing can be decoded or the stream cannot be upscaled.
    """
    try:
        return _probe(source, name, stream, on_frame, threads=0)
    except _DamagedError:
        # Threads report an error with a later packet than the bad one.
        return _probe(source, name, stream, on_frame, threads=1)


class _DamagedError(Exception):
    pass


def _probe(
    source: str | BinaryIO, name: str, stream: int | None, on_frame: Callable[[int], None], threads: int
) -> tuple[VideoInfo, Timeline]:
    declared_bytes, cut, edits = stated_bytes(source), gif_is_cut(source), edited_until(source)
    with open_media(source, name) as container:
        video = choose_video_stream(container, name, stream)
        header = read_header(container, video.index)
        use_threads(video, threads)
        scan = _Scan(name_at=getattr(source, "name_at", None), declared_bytes=declared_bytes, is_cut=cut)
        scan.edited_until_s = edits.get(video.id)
        for _ in _decode_all(container, video, scan, PacketCheck(video, source)):
            on_frame(scan.timeline.num_frames)
        _note_lost_packets(video, scan)
        if scan.damage and threads != 1:
            raise _DamagedError
        if scan.first is None:
            raise MediaError(f"{name}: no frame of video stream {video.index} ({video.codec_context.name}) can be decoded")
        return _conclude(container, video, header, scan, name)


def use_threads(video: VideoStream, threads: int) -> None:
    """0: as many decoder threads as there are cores; 1: one, which reports each error with the packet that caused it."""
    video.codec_context.thread_type = "AUTO" if threads != 1 else "SLICE"
    video.codec_context.thread_count = threads


def _decode_all(container: InputContainer, video: VideoStream, scan: _Scan, check: PacketCheck) -> Iterator[None]:
    packets, decode = container.demux(), decoder_for(video)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.error.EOFError):
            return
        except av.error.FFmpegError as error:
            scan.damage.append(f"the file cannot be read on after {scan.last_end_s:.3f} s: {_reason(error)}")
            return
        if packet.size and packet.pts is not None and packet.time_base:
            scan.last_end_s = max(scan.last_end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if packet.stream.index != video.index:
            scan.clocks.setdefault(packet.stream.index, StreamClock()).note(packet)
            continue
        scan.num_packets += packet.size > 0
        if packet.pts is not None and not packet.is_discard:
            scan.packet_pts.add(packet.pts)
            if scan.first is None:
                scan.early_pts.append(packet.pts)
        try:
            # The flush packet has size 0 and must be decoded: it drains the decoder.
            frames = decode(packet)
        except av.error.EOFError:
            continue
        except av.error.FFmpegError as error:
            _note_bad_packet(packet, scan, _reason(error))
            continue
        if (wrong := check.damage(packet)) and (frames or scan.first is not None):
            scan.damage.append(f"the packet at {_where(packet, scan)} {wrong}; frames from there on may be wrong or missing")
        for frame in frames:
            _note_frame(frame, video.codec_context.name, scan)
            yield


def _note_lost_packets(video: VideoStream, scan: _Scan) -> None:
    """H.264 and HEVC decoders pass over some damaged packets in silence: those whose time no frame has.

    Other codecs have packets that show nothing by design.
    """
    shown = {pts for pts in scan.timeline.pts if pts is not None}
    if (
        not shown
        or video.codec_context.name not in ("h264", "hevc")
        or len(shown) != scan.timeline.num_frames
        or scan.combs.seen.flagged
    ):
        return
    noted = {pts for _, pts in scan.timeline.missing}
    rising = sorted(shown)
    for pts in sorted(scan.packet_pts - shown - noted):
        if pts > rising[0]:
            scan.damage.append(f"the packet at {float(pts * (video.time_base or 1)):.3f} s gives no frame")
            scan.timeline.missing.append((bisect_left(rising, pts), pts))


def _note_bad_packet(packet: av.Packet[Any], scan: _Scan, reason: str) -> None:
    if scan.first is None:
        return  # nothing to show before the first key frame
    scan.damage.append(f"a packet at {_where(packet, scan)} cannot be decoded: {reason}")
    scan.timeline.add_missing(packet.pts)


def _where(packet: av.Packet[Any], scan: _Scan) -> str:
    where = "unknown time" if packet.pts is None or not packet.time_base else f"{float(packet.pts * packet.time_base):.3f} s"
    return f"{where}, {scan.name_at(packet.pos)}," if scan.name_at and packet.pos is not None else where


def _note_frame(frame: av.VideoFrame, codec: str, scan: _Scan) -> None:
    if scan.first is None:
        scan.first = frame
    if frame.is_corrupt:
        at = f"{float(frame.pts * frame.time_base):.3f} s" if frame.pts is not None and frame.time_base else "unknown time"
        scan.damage.append(f"frame {scan.timeline.num_frames} at {at} is damaged")
    scan.combs.add(frame)
    scan.sizes.add((frame.width, frame.height, frame.format.name))
    scan.tags.add(frame, codec)
    scan.timeline.add(frame.pts, frame.duration, checksum(frame), bool(frame.key_frame), scan.scenes.change(frame))


def _conclude(
    container: InputContainer, video: VideoStream, header: Header, scan: _Scan, name: str
) -> tuple[VideoInfo, Timeline]:
    assert scan.first is not None
    if len(scan.sizes) > 1:
        raise MediaError(
            f"{name}: frames change size or format mid-stream ({sorted(scan.sizes)}); split it at the changes first"
        )
    scan.tags.refuse_change(name)
    if header.dolby_vision[:1] == (5,):
        raise MediaError(
            f"{name}: Dolby Vision profile 5 shows false colours without its metadata, which cannot be kept; first convert it "
            "to HDR10 with a program that knows Dolby Vision"
        )
    first, context = scan.first, video.codec_context
    assert video.time_base is not None
    rate = video.guessed_rate or video.average_rate or Fraction(25)
    short = truncation(container, video, scan.declared_bytes, scan.is_cut, scan.num_packets, scan.last_end_s)
    trust_pts = container.format.name != "avi" or not context.has_b_frames
    builder, last_pts = scan.timeline, max((pts for pts in scan.timeline.pts if pts is not None), default=0)
    if not short and builder.pts[-1] == last_pts:
        builder.duration[-1] = last_duration(container.format.name, video, last_pts, builder.duration[-1], scan.edited_until_s)
    try:
        timeline, repairs, guesses = settle(
            builder,
            1 / (rate * video.time_base),
            1 / video.time_base,
            trust_pts,
            scan.clocks if container.format.name in WRAPPING else None,
            {stream.index for stream in container.streams.audio},
        )
    except MediaError as error:
        raise MediaError(f"{name}: {error}") from error
    scan.damage += [*jump_lines(repairs, video.time_base), *short]
    warnings = pause_lines(repairs, timeline, video.time_base)
    num_early = sum(pts < timeline.pts[0] for pts in scan.early_pts)
    if num_early:
        warnings.append(f"{num_early} packets before the first decodable frame give no picture")
    if scan.tags.hdr_changes:
        warnings.append(f"HDR10 metadata changes {scan.tags.hdr_changes} times; the first is kept")
    window = window_of(first.width, first.height, header.cropping, first.format.name, warnings)
    beside = scan.tags.side_data | ({"DOVI_METADATA"} if header.dolby_vision else set())
    if "stereo_mode" in video.metadata:
        beside -= {"STEREO3D"}  # which Matroska's tag says; it goes along, or is listed, as tags are
    info = VideoInfo(
        container=container.format.name,
        stream=video.index,
        codec=context.name,
        width=window.width,
        height=window.height,
        corner=(window.left, window.top),
        pix_fmt=first.format.name,
        time_base=str(video.time_base),
        rate=str(rate),
        sample_aspect_ratio=str(video.sample_aspect_ratio) if video.sample_aspect_ratio else None,
        display_matrix=scan.tags.display_matrix,
        color_range=int(first.color_range) or int(context.color_range),
        color_space=code_of(first.colorspace, context.colorspace),
        color_primaries=code_of(first.color_primaries, context.color_primaries),
        color_trc=code_of(first.color_trc, context.color_trc),
        num_frames=len(timeline),
        duration_s=float((timeline.pts[-1] + timeline.duration[-1] - timeline.pts[0]) * video.time_base),
        interlacing=scan.combs.seen,
        time_repairs=repairs,
        chroma_location=header.chroma_location,
        transparent=scan.tags.transparent,
        mastering_display=scan.tags.mastering_display,
        content_light=scan.tags.content_light,
        side_data=tuple(sorted(beside)),
        damage=tuple(scan.damage),
        guesses=tuple(guesses),
        warnings=tuple(warnings),
    )
    return info, timeline


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).splitlines()[0]
