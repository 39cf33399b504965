"""Join the committed segments and the copied streams into one file, without encoding anything again."""

from __future__ import annotations

import base64
import hashlib
import math
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import av.error
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Stream
from av.video.stream import VideoStream
from numpy.typing import NDArray

from pipeline.errors import OutputError
from pipeline.storage import Store
from pipeline.video.clock import WRAPPING, SourceClock
from pipeline.video.editlist import hide_priming
from pipeline.video.info import VideoInfo
from pipeline.video.interleave import in_time_order, merge
from pipeline.video.labels import copy_container_tags
from pipeline.video.matroska import state_pixel_shape
from pipeline.video.packets import StoredPacket, read_packets
from pipeline.video.plan import EncodeSpec
from pipeline.video.probe import is_cover, open_media
from pipeline.video.reader import decode
from pipeline.video.streams import StreamPlan, Taken, Track, add_streams, found_again, read_openings, tag_options
from pipeline.video.timeline import Timeline

Records = Sequence[dict[str, Any]]


class DamagedSegmentError(Exception):
    """A stored segment is not what its commit record says; it has to be done again."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(f"segment {index} {reason}")
        self.index = index


def assemble(
    target: Path,
    source: str | BinaryIO,
    name: str,
    info: VideoInfo,
    timeline: Timeline,
    spec: EncodeSpec,
    streams: list[StreamPlan],
    records: Records,
    store: Store,
    container_format: str,
) -> dict[int, Taken]:
    """Write ``target``; returns what each copied stream took, by the source's index.

    Raises DamagedSegmentError where a segment differs from its record, OutputError where FFmpeg refuses a packet.
    """
    with open_media(source, name) as container:
        openings = read_openings(container)
    if not isinstance(source, str):
        source.seek(0)
    with (
        open_media(source, name) as container,
        av.open(
            str(target), "w", format=container_format, options=muxer_options(container_format, spec, container, streams)
        ) as out,
    ):
        video, tracks = add_streams(out, container, streams, openings, spec)
        shift = start_shift(container, timeline, spec, container_format)
        copy_container_tags(out, container, shift)
        out.start_encoding()
        headers = {record["extradata"] for record in records}
        if len(headers) != 1 or (
            spec.global_header and base64.b64decode(headers.pop()) != bytes(video.codec_context.extradata or b"")
        ):
            raise OutputError(f"{name}: segments were encoded with different headers; run again with --fresh")
        clock = SourceClock(shift, info.time_repairs.packet_jumps, info.container in WRAPPING)
        copied = copied_packets(container, tracks, clock, bool(info.damage))
        num_streams = sum(plan.action in ("copy", "convert") and plan.type not in ("cover", "attachment") for plan in streams)
        joined = video_packets(records, store, timeline, spec, video, round(shift / Fraction(spec.time_base)))
        try:
            with closing(joined):  # it holds the local copy of a segment
                by_place = {track.stream.index: track for track in tracks.values()}
                for packet in merge(joined, in_time_order(copied, num_streams)):
                    try:
                        out.mux(packet)
                    except av.error.InvalidDataError:
                        if packet.stream_index not in by_place:
                            raise
                        by_place[packet.stream_index].refuse()  # hours of work are not lost for one packet of sound
        except (av.error.FFmpegError, ValueError) as error:
            advice = "" if container_format == "matroska" else "; an .mkv destination takes nearly anything"
            raise OutputError(f"{name}: the result cannot be written: {error}{advice}") from error
        shapes = {video.index: (spec.width, spec.height, Fraction(spec.sample_aspect_ratio or 0))}
        for index, track in tracks.items():
            like = container.streams[index]
            if isinstance(like, VideoStream):
                shapes[track.stream.index] = (like.width, like.height, like.sample_aspect_ratio or Fraction())
        places = [stream.index for stream in out.streams if stream.type != "attachment"]
        late = {track.stream.index: track.late_priming_s for track in tracks.values() if track.late_priming_s}
        in_index = [stream.index for stream in out.streams if not is_cover(stream)]
    if late:
        hide_priming(target, {in_index.index(index): seconds for index, seconds in late.items()})
    for index, (width, height, shape) in shapes.items() if container_format in ("matroska", "webm") else ():
        if shape and index in places:
            state_pixel_shape(target, places.index(index), width, height, shape)
    return {index: track.taken for index, track in tracks.items()}


def muxer_options(
    container_format: str, spec: EncodeSpec, container: InputContainer, streams: list[StreamPlan]
) -> dict[str, str]:
    """How the container is written: the same bytes every time, and an mp4's index first, its edit list exact."""
    options = {"fflags": "+bitexact"}  # without it Matroska numbers its tracks at random
    if container_format in ("mp4", "mov"):
        copied = [container.streams[plan.index] for plan in streams if plan.action in ("copy", "convert")]
        ticks = [Fraction(spec.time_base).denominator]
        ticks += [stream.time_base.denominator for stream in copied if stream.time_base]
        ticks += [stream.codec_context.sample_rate for stream in copied if isinstance(stream, AudioStream)]
        flags = "+faststart" + tag_options(container_format, container, streams)
        options |= {"movflags": flags, "movie_timescale": str(movie_timescale(ticks))}
    return options


def movie_timescale(ticks: Sequence[int]) -> int:
    """Ticks a second in which all of ``ticks`` are whole, as far as the format's 31 bits go; at least the usual 1000.

    Edit lists state in them when a stream starts: in milliseconds sound would move by up to one against the picture.
    """
    scale = 1000
    for each in ticks:
        common = math.lcm(scale, each)
        scale = common if common < 2**31 else scale
    return scale


def start_shift(container: InputContainer, timeline: Timeline, spec: EncodeSpec, container_format: str) -> Fraction:
    """Seconds that are added to every time of every stream.

    A transport stream's clock starts anywhere, which no other container means by a time; an mp4 hides what is before zero.
    """
    if container.format.name in WRAPPING and container_format != "mpegts":
        return -Fraction(round(Fraction(container.start_time * 90_000, av.time_base)), 90_000)
    start = int(timeline.pts[0]) * Fraction(spec.time_base)
    return max(-start, Fraction(0)) if container_format in ("mp4", "mov") else Fraction(0)


def video_packets(
    records: Records, store: Store, timeline: Timeline, spec: EncodeSpec, stream: Stream, shift_ticks: int
) -> Generator[av.Packet[Any], None, None]:
    """Packets of all segments with the timeline's times, ``shift_ticks`` later, and DTS counted anew over the whole.

    An encoder's own DTS overlap at joins of variable rate. In decode order the i-th packet gets the (i - d)-th presentation
    time, d being the deepest reordering: rising, and never after its own presentation. The last is decoded when it is shown:
    an mp4 has no durations but the steps of decoding, and readers cut a track off where they end.
    """
    depth = max(record["reorder_depth"] for record in records)
    step = max(1, int(timeline.pts[1] - timeline.pts[0])) if len(timeline) > 1 else 1
    position = 0
    for record in records:
        start, count = position, record["num_frames"]
        times = timeline.pts[start : start + count]
        with fetched(record, store) as path:
            order = presentation_ranks([packet.pts for packet in read_packets(path)])
            if len(order) != count:
                raise DamagedSegmentError(record["index"], f"holds {len(order)} packets for {count} frames")
            for rank, stored in zip(order, read_packets(path), strict=True):
                packet = av.Packet(stored.data)
                packet.pts = int(times[rank]) + shift_ticks
                packet.dts = shift_ticks + (
                    int(timeline.pts[position - depth])
                    if position >= depth
                    else int(timeline.pts[0]) - (depth - position) * step
                )
                packet.duration = int(timeline.duration[start + rank])
                if position == len(timeline) - 1:
                    packet.dts = packet.pts
                    packet.duration = int(timeline.pts[-1] + timeline.duration[-1]) + shift_ticks - packet.pts
                packet.time_base, packet.stream, packet.is_keyframe = Fraction(spec.time_base), stream, stored.key
                position += 1
                yield packet


def presentation_ranks(pts_in_decode_order: Sequence[int]) -> NDArray[np.int64]:
    """For each packet in decode order, which frame of the segment it shows."""
    return np.argsort(np.argsort(np.asarray(pts_in_decode_order, np.int64), kind="stable"), kind="stable")


def stored_packets(records: Records, store: Store) -> Generator[StoredPacket, None, None]:
    """The packets of all segments as they were stored, for results that need no multiplexer."""
    for record in records:
        with fetched(record, store) as path:
            count = 0
            for packet in read_packets(path):
                yield packet
                count += 1
            if count != record["num_frames"]:
                raise DamagedSegmentError(record["index"], f"holds {count} packets for {record['num_frames']} frames")


@contextmanager
def fetched(record: dict[str, Any], store: Store) -> Iterator[Path]:
    """The local copy of a segment, checked against its record; DamagedSegmentError where it differs."""
    with tempfile.TemporaryDirectory(prefix="swinir-") as folder:
        path = Path(folder) / "segment.arrow"
        try:
            store.download(record["key"], path)
        except FileNotFoundError as error:
            raise DamagedSegmentError(record["index"], "is missing, though it was committed") from error
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != record["sha256"]:
                raise DamagedSegmentError(record["index"], "was changed after it was committed")
        yield path


def copied_packets(
    container: InputContainer, tracks: Mapping[int, Track], clock: SourceClock, damaged: bool
) -> Iterator[av.Packet[Any]]:
    """Every packet of the streams that go along, as their tracks take it, in file order, at its time by ``clock``.

    A ``damaged`` file, which the probe has reported, ends where it can no longer be read; any other raises OutputError there.
    """
    wanted = [container.streams[index] for index in tracks]
    if not wanted:
        return
    packets = container.demux(*wanted)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.error.FFmpegError as error:
            if damaged:
                return
            raise OutputError(f"the source can no longer be read to its end: {error}; run the same command again") from error
        if not packet.size:
            continue
        if packet.dts is not None or packet.pts is not None:
            clock.apply(packet)
        taken = tracks[packet.stream_index].take(packet)
        if taken is not None:
            yield taken


def verify(
    path: Path, name: str, timeline: Timeline, spec: EncodeSpec, streams: Sequence[StreamPlan], taken: Mapping[int, Taken]
) -> None:
    """Read the finished file: every frame decodes, at its time from the first on; every copied packet is there.

    Raises OutputError. Times may be off by half a tick of the container's own time base (Matroska keeps milliseconds).
    """
    upscaled = next(plan.index for plan in streams if plan.action == "upscale")
    with open_media(str(path), name) as container:
        video = found_again(container, streams).get(upscaled)
        if not isinstance(video, VideoStream):
            raise OutputError(f"{name}: no video stream can be read back")
        video.thread_type = "AUTO"
        assert video.time_base is not None
        tick_s = float(video.time_base)  # a stream's memory goes with its container
        times = [frame.pts for frame in decode(container, video) if frame.pts is not None]
    if len(times) != len(timeline):
        raise OutputError(f"{name}: {len(times)} of {len(timeline)} frames can be read back; run the same command again")
    seen = (np.array(times, np.int64) - times[0]) * tick_s
    planned = (timeline.pts - timeline.pts[0]) * float(Fraction(spec.time_base))
    worst = float(np.abs(seen - planned).max())
    if worst > 1.01 * tick_s:
        raise OutputError(f"{name}: frame times read back are off by up to {worst:.6f} s; run the same command again")
    with open_media(str(path), name) as container:
        found = {index: stream.index for index, stream in found_again(container, streams).items()}
        counts = dict.fromkeys(range(len(container.streams)), 0)
        for packet in container.demux():
            counts[packet.stream_index] += packet.size > 0
    for index, (num_packets, *_) in taken.items():
        if index not in found:
            raise OutputError(f"{name}: copied stream {index} cannot be read back")
        if counts[found[index]] < num_packets:
            raise OutputError(
                f"{name}: {counts[found[index]]} of {num_packets} packets of copied stream {index} can be read back"
            )
