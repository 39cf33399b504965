"""What becomes of every stream, decided by really muxing the first seconds of it into the container, before any work.

| what the container refuses | becomes |
|---|---|
| `mov_text` in Matroska | SubRip, by itself: all that it says, SubRip says too |
| other text subtitles in mp4, mov, webm | the container's own with `--convert-subtitles`: styles or positions are lost |
| time code tracks | written anew from the time code that the video's tags state, else as data |
| QuickTime's chapter tracks | written anew from the chapters |
| data that only its own container understands | dropped and listed |
| sound, bitmap subtitles, attachments, covers, videos | dropped and listed with `--drop-incompatible`, else the job stops |
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, BinaryIO, NamedTuple

import av
import av.error
from av.container import InputContainer, OutputContainer
from av.stream import Stream
from av.video.stream import VideoStream

from pipeline.config import VideoConfig
from pipeline.errors import ConfigError
from pipeline.video.encode import check_rate
from pipeline.video.labels import copy_container_tags, copy_tags
from pipeline.video.losses import lost_priming, lost_tags
from pipeline.video.probe import choose_video_stream, open_media
from pipeline.video.streams import (
    Opening,
    StreamPlan,
    add_track,
    codec_of,
    found_again,
    kind_of,
    read_openings,
    tag_options,
)
from pipeline.video.subtitles import LOSSES, needs_consent, text_target

SECONDS = 2  # of every stream
MAX_PACKETS = 4000
# Of fewer frames than it may reorder, x265 gives decode times out of uninitialised memory, which no muxer takes.
FAST = {"libx264": {"preset": "ultrafast"}, "libx265": {"preset": "ultrafast", "x265-params": "log-level=error:bframes=0"}}
NULL_PACKET = b"\x47\x1f\xff\x10" + bytes([0xFF]) * 184  # MPEG-TS of which there are only a few kB cannot be read


def plan_streams(
    source: str | BinaryIO, name: str, config: VideoConfig, container_format: str
) -> tuple[list[StreamPlan], list[str]]:
    """Every stream of the source with what becomes of it, by the table above; and which tags the container cannot hold.

    Raises ConfigError, with the remedies, where one would be lost without consent, MediaError where there is no video.
    """
    with open_media(source, name) as container:
        openings = read_openings(container)
    if not isinstance(source, str):
        source.seek(0)
    with open_media(source, name) as container:
        video = choose_video_stream(container, name, config.stream)
        check_rate(config.codec, video.guessed_rate or Fraction(25))
        bench = Bench(container, video, container_format, config, openings)
        if refusal := bench.refusal([bench.upscaled]):
            if config.pix_fmt:
                raise ConfigError(
                    f"{config.codec} in {container_format} takes no --pix-fmt {config.pix_fmt} ({refusal}); leave it out, or "
                    "choose another"
                )
            video_codec = f"{config.codec} video ({refusal})"
            raise ConfigError(f"{name}: {container_format} cannot hold {video_codec}; choose .mkv or another --codec")
        plans = [bench.plan(stream) for stream in container.streams]
        refused = [plan for plan in plans if plan.action == "drop" and plan.type not in ("data", "unknown")]
        if refused and not config.drop_incompatible:
            what = ", ".join(f"stream {plan.index} ({plan.type}, {plan.codec})" for plan in refused)
            text = all(text_target(plan.codec, container_format) for plan in refused)
            remedy = "choose an .mkv destination or pass --drop-incompatible"
            remedy = f"pass --convert-subtitles, which keeps their text, {remedy}" if text else remedy
            raise ConfigError(f"{name}: {container_format} cannot hold {what}; {remedy}")
        refusal = bench.refusal(plans)
    if refusal:
        raise ConfigError(f"{name}: {container_format} cannot hold these streams together: {refusal}; choose .mkv")
    return plans, bench.lost_tags + (lost_priming(plans, openings) if container_format == "mpegts" else [])


class Sample(NamedTuple):
    """A packet and its times, which muxing changes."""

    packet: av.Packet[Any]
    pts: int | None
    dts: int | None
    duration: int | None
    time_base: Fraction

    def fresh(self) -> av.Packet[Any]:
        packet = self.packet
        packet.time_base, packet.duration = self.time_base, self.duration
        packet.pts, packet.dts = self.pts, self.dts
        return packet


def first_samples(container: InputContainer) -> Iterator[tuple[int, Sample]]:
    """The first seconds of every stream with its index, as far as the first packets of the file hold them, in file order."""
    count = 0
    begun: dict[int, Fraction] = {}
    done: set[int] = set()
    try:
        for packet in container.demux():
            time = packet.dts if packet.dts is not None else packet.pts
            tick, index = packet.time_base, packet.stream_index
            if packet.size and index not in done and tick:
                yield index, Sample(packet, packet.pts, packet.dts, packet.duration, tick)
                count += 1
                if time is not None and (time * tick - begun.setdefault(index, time * tick)) > SECONDS:
                    done.add(index)
            if len(done) == len(container.streams) or count == MAX_PACKETS:
                return
    except av.error.FFmpegError:
        return  # damage is the probe's business


class Bench:
    """Muxes the beginnings of streams, beside a few frames of the video codec, into memory and reads the result."""

    def __init__(
        self,
        container: InputContainer,
        video: VideoStream,
        container_format: str,
        config: VideoConfig,
        openings: dict[int, Opening],
    ) -> None:
        self._container, self._video, self._format = container, video, container_format
        self._config, self._openings = config, openings
        self.upscaled = StreamPlan(video.index, "video", codec_of(video), "upscale")
        self.lost_tags: list[str] = []  # of the last that was accepted
        self._samples = [(index, sample) for index, sample in first_samples(container) if index != video.index]

    def plan(self, stream: Stream) -> StreamPlan:
        """What becomes of one stream, whatever the others are."""
        index, kind, codec = stream.index, kind_of(stream), codec_of(stream)
        if index == self._video.index:
            return self.upscaled
        if made_anew := self._made_anew(stream):
            return StreamPlan(index, kind, codec, "rewrite", made_anew)
        if codec == "unknown":
            # FFmpeg's muxers write some such streams, an iPhone's metadata for one, without what says how to read them.
            return StreamPlan(index, kind, codec, "drop", "FFmpeg does not know what it is")
        copied = StreamPlan(index, kind, codec, "copy")
        refusal = self.refusal([self.upscaled, copied])
        if refusal is None:
            return copied
        target = text_target(codec, self._format)
        if target and (self._config.convert_subtitles or not needs_consent(codec)):
            converted = StreamPlan(index, kind, codec, "convert", f"to {target}: {LOSSES[target]}")
            if self.refusal([self.upscaled, converted]) is None:
                return converted
        return StreamPlan(index, kind, codec, "drop", f"{self._format} cannot hold it: {refusal}")

    def _made_anew(self, stream: Stream) -> str | None:
        """How what the stream says goes along otherwise; None where it does not."""
        if stream.type != "data" or "mov" not in self._container.format.name:
            return None
        time_code = stream.metadata.get("timecode")
        if time_code and self._video.metadata.get("timecode") == time_code and self._format != "mpegts":
            return f"its time code, {time_code}, goes along with the video"
        if codec_of(stream) == "bin_data" and self._container.chapters() and self._format in ("mp4", "mov", "matroska", "webm"):
            return "its titles go along as chapters"
        return None

    def refusal(self, plans: list[StreamPlan]) -> str | None:
        """Why the container does not take these streams; None where they are all there when it is read again."""
        file = io.BytesIO()
        flags = tag_options(self._format, self._container, plans)
        options = {"fflags": "+bitexact"} | ({"movflags": flags} if flags else {})
        try:
            with av.open(file, "w", format=self._format, options=options) as out:
                self._mux(out, plans)
        except (ValueError, av.error.FFmpegError) as error:
            said = getattr(error, "log", None)  # FFmpeg's own last message: level, component, text
            return str(said[2] if said else getattr(error, "strerror", error)).strip().splitlines()[0]
        if self._format == "mpegts":
            file.write(NULL_PACKET * 16)
        file.seek(0)
        # What a muxer takes, a reader need not know: MPEG-TS holds anything as data that nothing plays.
        try:
            with av.open(file, "r") as result:
                self.lost_tags = lost_tags(result, self._container, plans, self._format)
                return self._missing(result, plans)
        except (ValueError, av.error.FFmpegError) as error:
            return f"it cannot be read again: {error}"

    def _mux(self, out: OutputContainer, plans: list[StreamPlan]) -> None:
        tracks, pictures = {}, None
        for plan in plans:
            source = self._container.streams[plan.index]
            if plan.action == "upscale":
                pictures = self._add_video(out)
            elif plan.has_track:
                tracks[plan.index] = add_track(out, source, plan, self._openings.get(plan.index))
        assert pictures is not None
        copy_container_tags(out, self._container)
        out.start_encoding()
        for packet in encoded(pictures):
            out.mux(packet)
        errors: dict[int, av.error.InvalidDataError] = {}
        for index, sample in self._samples:
            taken = tracks[index].take(sample.fresh()) if index in tracks else None
            try:
                if taken is not None:
                    out.mux(taken)
            except av.error.InvalidDataError as error:
                tracks[index].refuse()
                errors.setdefault(index, error)
        for index, first in errors.items():
            seen = tracks[index].taken
            if seen.num_refused > seen.num_packets:  # not damage here and there: the container does not take it
                raise first

    def _add_video(self, out: OutputContainer) -> VideoStream:
        stream = out.add_stream(self._config.codec, rate=self._video.guessed_rate or 25)  # a time code counts in it
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 64, self._config.pix_fmt or stream.codec_context.pix_fmt
        stream.codec_context.time_base = Fraction(1, 25)
        stream.codec_context.options = FAST.get(self._config.codec, {})
        copy_tags(self._video, stream)
        return stream

    def _missing(self, result: InputContainer, plans: list[StreamPlan]) -> str | None:
        found = found_again(result, plans)
        for plan in plans:
            if not plan.has_track:
                continue
            again = found.get(plan.index)
            if again is None:
                return f"stream {plan.index} is not there when the file is read again"
            source = self._container.streams[plan.index]
            wanted = {
                "upscale": av.Codec(self._config.codec, "w").canonical_name,
                "convert": text_target(plan.codec, self._format),
            }.get(plan.action, canonical(source))
            if kind_of(again) != plan.type or canonical(again) != wanted:
                return f"{wanted or source.type} is read again as {canonical(again) or again.type}"
        return None


def canonical(stream: Stream) -> str | None:
    """The codec's name, whoever decodes it."""
    return stream.codec_context.codec.canonical_name if stream.codec_context else getattr(stream, "name", None)


def encoded(stream: VideoStream) -> Iterator[av.Packet[Any]]:
    """A few grey frames."""
    for number in range(3):
        frame = av.VideoFrame(stream.width, stream.height, "gray")
        frame.planes[0].update(bytes([128]) * frame.planes[0].buffer_size)
        frame = frame.reformat(format=stream.pix_fmt)
        frame.pts, frame.time_base = number, Fraction(1, 25)
        yield from stream.encode(frame)
    yield from stream.encode(None)
