"""The streams of the result: made like the source's, in the same order, and fed with packets as they are."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple

import av
import av.error
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from pipeline.errors import ConfigError
from pipeline.video.encode import configure
from pipeline.video.labels import copy_tags, is_stale
from pipeline.video.plan import EncodeSpec
from pipeline.video.priming import DELAYED, SampleClock, counts_samples, delayed, skipped_samples
from pipeline.video.probe import is_cover
from pipeline.video.subtitles import TextConverter, text_target

FORMATS = {".mkv": "matroska", ".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".webm": "webm", ".ts": "mpegts", ".gif": "gif"}
GLOBAL_HEADER = 0x40  # AVFMT_GLOBALHEADER: the container keeps codec headers apart from the packets
NONSTRICT_TIMES = 0x20000  # AVFMT_TS_NONSTRICT: decode times may be equal

# Matroska keeps cover art as an attachment of such a type; FFmpeg's names of the codecs.
COVER_TYPES = {"mjpeg": "image/jpeg", "png": "image/png", "gif": "image/gif", "tiff": "image/tiff"}
APPLE_TAGS = "com.apple.quicktime."


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """What becomes of one stream of the source, and why; what is rewritten is made anew by the muxer from what is kept."""

    index: int
    type: str
    codec: str
    action: Literal["upscale", "copy", "convert", "rewrite", "drop"]
    reason: str = ""

    @property
    def has_track(self) -> bool:
        return self.action in ("upscale", "copy", "convert")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def output_format(destination: str) -> str:
    """The container format for a file name. ConfigError where the ending is not one of FORMATS."""
    suffix = PurePosixPath(destination).suffix.lower()
    if suffix not in FORMATS:
        raise ConfigError(f"{destination}: unknown ending {suffix or '(none)'!r}; use {', '.join(FORMATS)} or name/ for images")
    return FORMATS[suffix]


def wants_global_header(container_format: str) -> bool:
    return bool(int(av.ContainerFormat(container_format, "w").flags) & GLOBAL_HEADER)


def check_codec(codec: str, container_format: str, destination: str) -> None:
    """ConfigError where the container cannot hold the video codec at all."""
    remedy = f"{destination}: {container_format} cannot hold {codec} video; choose .mkv or another --codec"
    with av.open(io.BytesIO(), "w", format=container_format) as out:
        try:
            out.add_stream(codec, rate=25)
        except (ValueError, av.error.FFmpegError) as error:
            raise ConfigError(remedy) from error


def codec_of(stream: Stream) -> str:
    return stream.codec_context.name if stream.codec_context else getattr(stream, "name", None) or "unknown"


def kind_of(stream: Stream) -> str:
    """video, audio, subtitle, attachment, data, unknown, or cover."""
    return "cover" if is_cover(stream) else stream.type or "unknown"


@dataclass(frozen=True, slots=True)
class Opening:
    """What has to be known of a stream's first packet before a header can be written: a cover's picture, a sound's priming."""

    payload: bytes
    num_skipped: int


def read_openings(container: InputContainer, limit: int = 2000) -> dict[int, Opening]:
    """The first packets of cover art and of sound that may be primed, where they are among the file's first ``limit``."""
    wanted = {s.index for s in container.streams if is_cover(s) or codec_of(s) in (*DELAYED, "opus")}
    found: dict[int, Opening] = {}
    if not wanted:
        return found
    try:
        for count, packet in enumerate(container.demux()):
            if packet.size and packet.stream_index in wanted:
                found.setdefault(packet.stream_index, Opening(bytes(packet), skipped_samples(packet)[0]))
            if found.keys() == wanted or count == limit:
                break
    except av.error.FFmpegError:
        pass  # damage is the probe's business
    return found


class Taken(NamedTuple):
    """Packets that a stream of the result has taken, how many of them had to be moved to a later time, and how many others are
    so damaged that they could not be taken.
    """

    num_packets: int = 0
    num_moved: int = 0
    num_refused: int = 0


class Track:
    """A stream of the result and how it takes another's packets."""

    def __init__(
        self,
        stream: Stream,
        rises: bool,
        clock: SampleClock | None = None,
        text: TextConverter | None = None,
        sample_rate: int = 0,
    ) -> None:
        """``sample_rate`` is that of sound in a container that hides priming by an edit list, else 0."""
        self.stream, self._rises, self._clock, self._text, self._sample_rate = stream, rises, clock, text, sample_rate
        self.taken = Taken()
        self.late_priming_s = Fraction(0)  # of sound that starts after zero: all its packets come so much later
        self._last: int | None = None

    def take(self, packet: av.Packet[Any]) -> av.Packet[Any] | None:
        """The packet as the result holds it: itself, with its side data, or its text; None where nothing of it is a packet."""
        if self.stream.type == "attachment":
            return None
        if self.stream.container.format.name in ("mp4", "mov") and not begins_soundly(packet):
            self.taken = self.taken._replace(num_refused=self.taken.num_refused + 1)
            return None
        if packet.pts is None and packet.dts is None:  # cover art
            packet.pts = packet.dts = self._last or 0
        if self._text:
            text = self._text.convert(packet)
            if text is None:
                return None
            packet = text
        if self._clock:
            self._clock.apply(packet)
        if self._sample_rate:
            self._delay_for_priming(packet)
        moved = self._keep_rising(packet)
        packet.stream = self.stream
        self.taken = self.taken._replace(num_packets=self.taken.num_packets + 1, num_moved=self.taken.num_moved + moved)
        return packet

    def refuse(self) -> None:
        """The packet that was taken last is not in the result."""
        self.taken = self.taken._replace(num_packets=self.taken.num_packets - 1, num_refused=self.taken.num_refused + 1)

    def _delay_for_priming(self, packet: av.Packet[Any]) -> None:
        """FFmpeg's muxer takes the first packet's time for the start of the sound, which lies after what is not to be heard."""
        assert packet.time_base is not None
        assert packet.pts is not None
        if not self.taken.num_packets:
            priming_s = Fraction(skipped_samples(packet)[0], self._sample_rate)
            if priming_s and packet.pts * packet.time_base + priming_s > packet.time_base:
                self.late_priming_s = priming_s
        shift = round(self.late_priming_s / packet.time_base)
        packet.pts += shift
        packet.dts = packet.pts if packet.dts is None else packet.dts + shift

    def _keep_rising(self, packet: av.Packet[Any]) -> bool:
        """Muxers refuse decode times that fall, and most of them equal ones, which rounding to milliseconds makes."""
        if packet.dts is None:
            return False
        moves = self._last is not None and packet.dts < self._last + self._rises
        if moves and self._last is not None:
            packet.dts = self._last + self._rises
            packet.pts = packet.dts if packet.pts is None else max(packet.pts, packet.dts)
        self._last = packet.dts
        return moves


def begins_soundly(packet: av.Packet[Any]) -> bool:
    """Whether AC-3 has its sync word (ETSI TS 102 366, 5.3.1), without which an mp4's muxer fails, some packets later."""
    codec = codec_of(packet.stream)
    return codec not in ("ac3", "eac3") or bytes(packet)[:2] == b"\x0b\x77"


def add_streams(
    out: OutputContainer,
    container: InputContainer,
    plans: Iterable[StreamPlan],
    openings: dict[int, Opening],
    spec: EncodeSpec,
) -> tuple[VideoStream, dict[int, Track]]:
    """The upscaled video and a track for every stream that goes along, by the source's index, in the source's order."""
    video: VideoStream | None = None
    tracks: dict[int, Track] = {}
    for plan in plans:
        source = container.streams[plan.index]
        if plan.action == "upscale":
            video = add_video(out, spec, source)
        elif plan.has_track:
            tracks[plan.index] = add_track(out, source, plan, openings.get(plan.index))
    assert video is not None
    if video.disposition & Disposition.default:
        # Of several default videos a player takes the first, which may be one that is as small as before.
        for track in tracks.values():
            if track.stream.type == "video" and not is_cover(track.stream):
                track.stream.disposition &= ~Disposition.default
    return video, tracks


def add_video(out: OutputContainer, spec: EncodeSpec, like: Stream) -> VideoStream:
    """The stream for the upscaled video, with the source's tags, language and disposition."""
    stream = out.add_stream(spec.codec)
    assert isinstance(stream, VideoStream)
    configure(stream.codec_context, spec)
    stream.time_base = stream.codec_context.time_base
    if spec.codec == "libx265" and out.format.name in ("mp4", "mov"):
        stream.codec_context.codec_tag = "hvc1"  # what Apple's players ask for
    if spec.display_matrix:
        stream.set_display_matrix(spec.display_matrix)
    copy_tags(like, stream)
    for key in ("alpha_mode", "ALPHA_MODE"):  # of VP8 and VP9, whose alpha lies beside the picture
        stream.metadata.pop(key, None)
    return stream


def add_track(out: OutputContainer, source: Stream, plan: StreamPlan, opening: Opening | None) -> Track:
    """Raises ValueError or FFmpegError where the container refuses the codec."""
    container_format = out.format.name
    rises = not int(out.format.flags) & NONSTRICT_TIMES
    if plan.action == "convert":
        target = text_target(plan.codec, container_format)
        assert target is not None
        text = TextConverter(out, source, target)
        copy_tags(source, text.stream)
        return Track(text.stream, rises, text=text)
    if is_cover(source) and container_format == "matroska":
        if opening is None or plan.codec not in COVER_TYPES:
            raise ValueError(f"no {plan.codec} cover art")
        kind = COVER_TYPES[plan.codec]
        name = source.metadata.get("filename") or f"cover.{kind.removeprefix('image/').replace('jpeg', 'jpg')}"
        stream: Stream = out.add_attachment(name, source.metadata.get("mimetype", kind), opening.payload)
        stream.metadata.update({key: value for key, value in source.metadata.items() if not is_stale(key)})
        return Track(stream, rises)
    template: Stream = source
    # What an mp4's edit list says of priming, Matroska's header has to say; what is read from Matroska says it already.
    told = container_format != "matroska" or "matroska" in source.container.format.name
    if isinstance(source, AudioStream) and plan.codec in DELAYED and opening and opening.num_skipped and not told:
        template = delayed(source, opening.num_skipped).streams[0]
    stream = out.add_stream_from_template(template, opaque=True)
    stream.time_base = source.time_base
    copy_tags(source, stream)
    if isinstance(stream, VideoStream) and isinstance(source, VideoStream) and source.sample_aspect_ratio:
        stream.codec_context.sample_aspect_ratio = source.sample_aspect_ratio  # templates have the codec's own alone
    clock, sample_rate = None, 0
    if container_format in ("mp4", "mov"):
        if plan.codec == "hevc":
            stream.codec_context.codec_tag = "hvc1"
        if isinstance(source, AudioStream) and not counts_samples(source):
            clock = SampleClock(source)
            stream.time_base = Fraction(1, source.codec_context.sample_rate)
        if isinstance(source, AudioStream):
            sample_rate = source.codec_context.sample_rate
    return Track(stream, rises, clock, sample_rate=sample_rate)


def tag_options(container_format: str, container: InputContainer, plans: Iterable[StreamPlan]) -> str:
    """The mp4 muxer's flag for keys of any name. Few players show a title kept so, and no cover art goes with it."""
    names_apple = any(key.lower().startswith(APPLE_TAGS) for key in container.metadata)
    covers = any(plan.type == "cover" and plan.has_track for plan in plans)
    return "+use_metadata_tags" if container_format in ("mp4", "mov") and names_apple and not covers else ""


def found_again(result: InputContainer, plans: Iterable[StreamPlan]) -> dict[int, Stream]:
    """The stream of a finished file that each of the source's became, by the latter's index, as far as there is one.

    Every container keeps tracks in the order they were added, with cover art and attachments after them.
    """
    places: dict[str, list[Stream]] = {"track": [], "cover": [], "attachment": []}
    for stream in result.streams:
        places[_place(kind_of(stream))].append(stream)
    queues = {place: iter(streams) for place, streams in places.items()}
    found = ((plan.index, next(queues[_place(plan.type)], None)) for plan in plans if plan.has_track)
    return {index: stream for index, stream in found if stream is not None}


def _place(kind: str) -> str:
    return kind if kind in ("cover", "attachment") else "track"
