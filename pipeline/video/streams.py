"""What becomes of every other stream: copied, converted or dropped; decided by really muxing it, before any work."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Literal

import av
import av.error
from av.container import InputContainer, OutputContainer
from av.stream import Stream
from av.video.stream import VideoStream

from pipeline.errors import ConfigError
from pipeline.video.encode import configure
from pipeline.video.plan import EncodeSpec
from pipeline.video.probe import choose_video_stream, open_media

FORMATS = {".mkv": "matroska", ".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".webm": "webm", ".ts": "mpegts"}
GLOBAL_HEADER = 0x40  # AVFMT_GLOBALHEADER: the container keeps codec headers apart from the packets

# Text that two subtitle codecs both hold, by the target container's own codec.
TEXT_SUBTITLES = {"matroska": "subrip"}

STALE_TAGS = ("BPS", "NUMBER_OF_FRAMES", "NUMBER_OF_BYTES", "_STATISTICS_", "DURATION", "ENCODER", "encoder")
CONTAINER_TAGS = ("major_brand", "minor_version", "compatible_brands", "encoder", "ENCODER", "DURATION")


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """What becomes of one stream of the source, and why."""

    index: int
    type: str
    codec: str
    action: Literal["upscale", "copy", "convert", "drop"]
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def output_format(destination: str) -> str:
    """The container format for a file name. ConfigError where the ending is not one of FORMATS."""
    suffix = PurePosixPath(destination).suffix.lower()
    if suffix not in FORMATS:
        raise ConfigError(f"{destination}: unknown ending {suffix or '(none)'!r}; use one of {', '.join(FORMATS)}")
    return FORMATS[suffix]


def wants_global_header(container_format: str) -> bool:
    return bool(int(av.ContainerFormat(container_format, "w").flags) & GLOBAL_HEADER)


def check_codec(codec: str, container_format: str, destination: str) -> None:
    """ConfigError where the container cannot hold the video codec at all."""
    remedy = f"{destination}: {container_format} cannot hold {codec} video; choose .mkv or another --codec"
    if container_format == "mpegts" and codec not in ("libx264", "libx265"):
        raise ConfigError(remedy)  # FFmpeg would write it as data that nothing reads
    with av.open(io.BytesIO(), "w", format=container_format) as out:
        try:
            out.add_stream(codec, rate=25)
        except (ValueError, av.error.FFmpegError) as error:
            raise ConfigError(remedy) from error


def plan_streams(
    source: str | BinaryIO, name: str, video_index: int | None, container_format: str, drop_incompatible: bool
) -> list[StreamPlan]:
    """Every stream of the source with what becomes of it. Raises ConfigError, with the remedy, where one would be lost.

    Data that only the source's own container understands is dropped and listed; text subtitles are converted; anything else
    that does not fit stops the job before it starts, unless ``drop_incompatible``.
    """
    with open_media(source, name) as container:
        video = choose_video_stream(container, name, video_index)
        packets = first_packets(container)
        plans, refused = [], []
        for stream in container.streams:
            if stream.index == video.index:
                plans.append(StreamPlan(stream.index, "video", codec_of(stream), "upscale"))
                continue
            plan = _plan_stream(stream, packets.get(stream.index), container_format)
            plans.append(plan)
            if plan.action == "drop" and plan.type not in ("data", "unknown"):
                refused.append(plan)
    if refused and not drop_incompatible:
        what = ", ".join(f"stream {plan.index} ({plan.type}, {plan.codec})" for plan in refused)
        raise ConfigError(
            f"{name}: {container_format} cannot hold {what}; choose an .mkv destination or pass --drop-incompatible"
        )
    return plans


def _plan_stream(stream: Stream, packet: av.Packet[Any] | None, container_format: str) -> StreamPlan:
    codec = codec_of(stream)
    refusal = dry_mux(stream, packet, container_format)
    if refusal is None:
        return StreamPlan(stream.index, stream.type or "unknown", codec, "copy")
    target = TEXT_SUBTITLES.get(container_format)
    if codec == "mov_text" and target:
        return StreamPlan(stream.index, "subtitle", codec, "convert", f"to {target}: {container_format} holds no mov_text")
    return StreamPlan(stream.index, stream.type or "unknown", codec, "drop", f"{container_format} cannot hold it: {refusal}")


def codec_of(stream: Stream) -> str:
    return stream.codec_context.name if stream.codec_context else "unknown"


def first_packets(container: InputContainer, limit: int = 2000) -> dict[int, av.Packet[Any]]:
    """The first packet of each stream, as far as the first ``limit`` packets hold one."""
    found: dict[int, av.Packet[Any]] = {}
    try:
        for count, packet in enumerate(container.demux()):
            if packet.size:
                found.setdefault(packet.stream.index, packet)
            if len(found) == len(container.streams) or count == limit:
                break
    except av.error.FFmpegError:
        pass  # damage is the probe's business
    return found


def dry_mux(stream: Stream, packet: av.Packet[Any] | None, container_format: str) -> str | None:
    """Why the container refuses the stream; None where header, first packet and trailer can be written."""
    try:
        with av.open(io.BytesIO(), "w", format=container_format) as out:
            copied = out.add_stream_from_template(stream, opaque=True)
            out.start_encoding()
            if packet is not None and packet.time_base:
                probe = av.Packet(bytes(packet))
                probe.dts = packet.dts if packet.dts is not None else packet.pts or 0
                probe.pts = packet.pts if packet.pts is not None else probe.dts
                probe.time_base, probe.stream, probe.is_keyframe = packet.time_base, copied, True
                out.mux(probe)
    except (ValueError, av.error.FFmpegError) as error:
        said = getattr(error, "log", None)  # FFmpeg's own last message: level, component, text
        return (said[2] if said else str(error)).strip().splitlines()[0]
    return None


def add_video(out: OutputContainer, spec: EncodeSpec, matrix: tuple[int, ...] | None, like: Stream) -> VideoStream:
    """The stream for the upscaled video, with the source's tags, language and disposition."""
    stream = out.add_stream(spec.codec)
    assert isinstance(stream, VideoStream)
    configure(stream.codec_context, spec)
    stream.time_base = stream.codec_context.time_base
    if spec.codec == "libx265" and out.format.name in ("mp4", "mov"):
        stream.codec_context.codec_tag = "hvc1"  # what Apple's players ask for
    if matrix:
        stream.set_display_matrix(matrix)
    _copy_tags(like, stream)
    return stream


def add_copies(out: OutputContainer, container: InputContainer, plans: list[StreamPlan]) -> Mapping[int, Stream]:
    """Streams of the output for those that are copied or converted, by the source's index."""
    targets: dict[int, Stream] = {}
    for plan in plans:
        source = container.streams[plan.index]
        if plan.action == "copy":
            targets[plan.index] = out.add_stream_from_template(source, opaque=True)
        elif plan.action == "convert":
            targets[plan.index] = out.add_mux_stream(TEXT_SUBTITLES[out.format.name])
        else:
            continue
        _copy_tags(source, targets[plan.index])
    return targets


def copy_container_tags(out: OutputContainer, container: InputContainer) -> None:
    """Title, date and the like, and the chapters."""
    out.metadata.update({key: value for key, value in container.metadata.items() if key not in CONTAINER_TAGS})
    chapters = container.chapters()
    if chapters:
        out.set_chapters(chapters)


def _copy_tags(source: Stream, target: Stream) -> None:
    target.metadata.update({key: value for key, value in source.metadata.items() if not key.startswith(STALE_TAGS)})
    target.disposition = source.disposition


def converted(packet: av.Packet[Any], target: Stream) -> av.Packet[Any] | None:
    """A mov_text packet (ISO 14496-17: length, text, style boxes) as SubRip text; None for the empty ones that fill gaps."""
    data = bytes(packet)
    text = data[2 : 2 + int.from_bytes(data[:2], "big")]
    if not text:
        return None
    result = av.Packet(text)
    result.pts, result.dts, result.duration = packet.pts, packet.dts, packet.duration
    result.time_base = packet.time_base
    result.stream = target
    return result
