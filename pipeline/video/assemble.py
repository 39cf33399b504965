"""Join the committed segments and the copied streams into one file, without encoding anything again."""

from __future__ import annotations

import base64
import hashlib
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.stream import Stream
from numpy.typing import NDArray

from pipeline.errors import OutputError
from pipeline.storage import Store
from pipeline.video.packets import read_packets
from pipeline.video.plan import EncodeSpec
from pipeline.video.probe import VideoInfo, open_media
from pipeline.video.reader import decode
from pipeline.video.streams import StreamPlan, add_copies, add_video, converted, copy_container_tags
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
) -> dict[int, int]:
    """Write ``target``; returns how many packets of each copied stream went in.

    Raises DamagedSegmentError where a segment differs from its record, OutputError where FFmpeg refuses a packet.
    """
    # Without bitexact, Matroska numbers its tracks at random.
    options = {"fflags": "+bitexact"} | ({"movflags": "+faststart"} if container_format in ("mp4", "mov") else {})
    with (
        open_media(source, name) as container,
        av.open(str(target), "w", format=container_format, options=options) as out,
    ):
        video = add_video(out, spec, info.display_matrix, container.streams[info.stream])
        copies = add_copies(out, container, streams)
        copy_container_tags(out, container)
        out.start_encoding()
        headers = {record["extradata"] for record in records}
        if len(headers) != 1 or (
            spec.global_header and base64.b64decode(headers.pop()) != bytes(video.codec_context.extradata or b"")
        ):
            raise OutputError(f"{name}: segments were encoded with different headers; run again with --fresh")
        counts = dict.fromkeys(copies, 0)
        joined = video_packets(records, store, timeline, spec, video)
        try:
            with closing(joined):  # it holds the local copy of a segment
                for packet in merge(joined, copied_packets(container, copies, counts, bool(info.damage))):
                    out.mux(packet)
        except (av.error.FFmpegError, ValueError) as error:
            raise OutputError(f"{name}: the result cannot be written: {error}") from error
    return counts


def video_packets(
    records: Records, store: Store, timeline: Timeline, spec: EncodeSpec, stream: Stream
) -> Generator[av.Packet[Any], None, None]:
    """Packets of all segments with the timeline's times and DTS counted anew over the whole.

    An encoder's own DTS overlap at joins of variable rate. In decode order the i-th packet gets the (i - d)-th presentation
    time, d being the deepest reordering: rising, and never after its own presentation.
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
                packet.pts = int(times[rank])
                packet.dts = (
                    int(timeline.pts[position - depth])
                    if position >= depth
                    else int(timeline.pts[0]) - (depth - position) * step
                )
                packet.duration = int(timeline.duration[start + rank])
                packet.time_base, packet.stream, packet.is_keyframe = Fraction(spec.time_base), stream, stored.key
                position += 1
                yield packet


def presentation_ranks(pts_in_decode_order: Sequence[int]) -> NDArray[np.int64]:
    """For each packet in decode order, which frame of the segment it shows."""
    return np.argsort(np.argsort(np.asarray(pts_in_decode_order, np.int64), kind="stable"), kind="stable")


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
    container: InputContainer, copies: Mapping[int, Stream], counts: dict[int, int], damaged: bool
) -> Iterator[av.Packet[Any]]:
    """Every packet of the streams that go along, as it is, in file order; ``counts`` is filled on the way.

    A ``damaged`` file, which the probe has reported, ends where it can no longer be read; any other raises OutputError there.
    """
    wanted = [container.streams[index] for index in copies]
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
        if not packet.size or (packet.dts is None and packet.pts is None):
            continue
        index = packet.stream.index
        target = copies[index]
        if target.type == "subtitle" and target.codec_context is None:
            text = converted(packet, target)
            if text is None:
                continue
            packet = text
        else:
            packet.stream = target
        counts[index] += 1
        yield packet


def merge(video: Iterator[av.Packet[Any]], others: Iterator[av.Packet[Any]]) -> Iterator[av.Packet[Any]]:
    """Both in order of their decode times, so that no stream lies far from the others in the file."""
    other = next(others, None)
    for packet in video:
        time = _decode_s(packet)
        while other is not None and _decode_s(other) <= time:
            yield other
            other = next(others, None)
        yield packet
    while other is not None:
        yield other
        other = next(others, None)


def _decode_s(packet: av.Packet[Any]) -> float:
    ticks = packet.dts if packet.dts is not None else packet.pts
    assert ticks is not None
    assert packet.time_base is not None
    return float(ticks * packet.time_base)


def verify(path: Path, name: str, timeline: Timeline, spec: EncodeSpec, counts: Mapping[int, int]) -> None:
    """Read the finished file: every frame decodes, at its time from the first on; every copied packet is there.

    Raises OutputError. Times may be off by half a tick of the container's own time base (Matroska keeps milliseconds).
    """
    with open_media(str(path), name) as container:
        # Streams are added with the upscaled video first.
        if not container.streams.video:
            raise OutputError(f"{name}: no video stream can be read back")
        video = container.streams.video[0]
        video.thread_type = "AUTO"
        assert video.time_base is not None
        times = [frame.pts for frame in decode(container, video) if frame.pts is not None]
    if len(times) != len(timeline):
        raise OutputError(f"{name}: {len(times)} of {len(timeline)} frames can be read back; run the same command again")
    seen = (np.array(times, np.int64) - times[0]) * float(video.time_base)
    planned = (timeline.pts - timeline.pts[0]) * float(Fraction(spec.time_base))
    worst = float(np.abs(seen - planned).max())
    if worst > 1.01 * float(video.time_base):
        raise OutputError(f"{name}: frame times read back are off by up to {worst:.6f} s; run the same command again")
    with open_media(str(path), name) as container:
        found = dict.fromkeys(range(len(container.streams)), 0)
        for packet in container.demux():
            found[packet.stream.index] += packet.size > 0
    # Attachments have no packets; copied streams follow the video in the order they were added.
    for position, (index, count) in enumerate(counts.items(), start=1):
        if found.get(position, 0) < count:
            raise OutputError(f"{name}: {found.get(position, 0)} of {count} packets of copied stream {index} can be read back")
