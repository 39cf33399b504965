"""Sources that hold more than a picture: sound of several codecs, subtitles, fonts, cover art, chapters, tags."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from PIL import Image

from tests.media import numbered_frame

ASS_HEADER = b"""[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, Alignment, MarginL, MarginR, MarginV
Style: Default,Some Font,20,&H00FFFFFF,2,10,10,10

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""
CHAPTERS = [
    {"id": 1, "start": 0, "end": 800, "time_base": Fraction(1, 1000), "metadata": {"title": "Anfang"}},
    {"id": 2, "start": 800, "end": 2000, "time_base": Fraction(1, 1000), "metadata": {"title": "Ende"}},
]


def cover_png() -> bytes:
    """A small picture, the kind that players show as cover art."""
    data = io.BytesIO()
    Image.fromarray(np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)).save(data, "PNG")
    return data.getvalue()


def sound(codec_format: str, seconds: float, rate: int, start_s: float, seed: int) -> Iterator[av.AudioFrame]:
    """A click at the first sample and at every half second, noise below it."""
    wave = np.random.default_rng(seed).normal(0, 0.01, round(seconds * rate))
    wave[:: rate // 2] = 0.9
    for at in range(0, len(wave), 1024):
        block = wave[None, at : at + 1024]
        samples = block.astype(np.float32) if codec_format.startswith("flt") else (block * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), codec_format, "mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, at + round(start_s * rate), Fraction(1, rate)
        yield frame


def pictures(num_frames: int, start_s: float) -> Iterator[av.VideoFrame]:
    """Numbered, 64x48, 25 a second."""
    for number in range(num_frames):
        frame = av.VideoFrame.from_ndarray(numbered_frame(number, 64, 48), "gray").reformat(format="yuv420p")
        frame.pts, frame.time_base = round(start_s * 12800) + number * 512, Fraction(1, 12800)
        yield frame


class Builder:
    """Puts streams together into one file; ``write`` interleaves them by their times, as muxers want."""

    def __init__(self, path: Path, options: dict[str, str] | None = None) -> None:
        self.path = path
        self._out = av.open(str(path), "w", options=options or {})
        self._frames: list[tuple[Any, Iterator[Any]]] = []
        self._packets: list[av.Packet[Any]] = []

    def video(
        self, num_frames: int = 50, codec: str = "libx264", start_s: float = 0, disposition: int = 0, **tags: str
    ) -> Builder:
        stream = self._out.add_stream(codec, rate=25, width=64, height=48, pix_fmt="yuv420p")
        stream.codec_context.time_base = Fraction(1, 12800)
        stream.options = {"g": "12", "bf": "2"} if codec == "libx264" else {"cpu-used": "8"}
        self._frames.append((self._tagged(stream, disposition, tags), pictures(num_frames, start_s)))
        return self

    def sound(
        self,
        codec: str,
        seconds: float = 2,
        rate: int = 48000,
        start_s: float = 0,
        seed: int = 0,
        disposition: int = 0,
        **tags: str,
    ) -> Builder:
        stream = self._out.add_stream(codec, rate=rate, layout="mono")
        stream.codec_context.time_base = Fraction(1, rate)
        frames = sound(stream.codec_context.format.name, seconds, rate, start_s, seed)
        self._frames.append((self._tagged(stream, disposition, tags), frames))
        return self

    def _tagged(self, stream: Any, disposition: int, tags: dict[str, str]) -> Any:
        stream.disposition = disposition
        stream.metadata.update(tags)
        return stream

    def text(self, codec: str, lines: Sequence[tuple[int, int, str]], disposition: int = 0, **tags: str) -> Builder:
        """Subtitles of (start, end, payload) in milliseconds; for "ass" the payload is an event as Matroska keeps it."""
        stream: Any = self._out.add_stream(codec) if codec == "ass" else self._out.add_mux_stream(codec)
        if codec == "ass":
            stream.codec_context.subtitle_header = ASS_HEADER
        stream.time_base = Fraction(1, 1000)
        self._tagged(stream, disposition, tags)
        for start, end, payload in lines:
            packet = av.Packet(payload.encode())
            packet.pts = packet.dts = start
            packet.duration, packet.time_base, packet.stream = end - start, Fraction(1, 1000), stream
            packet.is_keyframe = True
            self._packets.append(packet)
        return self

    def font(self, name: str, data: bytes) -> Builder:
        self._out.add_attachment(name, "font/ttf", data)
        return self

    def cover(self) -> Builder:
        """Matroska keeps cover art as an attachment of a picture's type; other containers as a stream of one packet."""
        if self._out.format.name == "matroska":
            self._out.add_attachment("cover.png", "image/png", cover_png())
            return self
        stream = self._out.add_stream("png", rate=1, width=32, height=32, pix_fmt="rgb24")
        stream.disposition = Disposition.attached_pic
        packet = av.Packet(cover_png())
        packet.pts = packet.dts = 0
        packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 1000), stream, True
        self._packets.append(packet)
        return self

    def data(self, codec: str, payloads: Sequence[bytes]) -> Builder:
        """One packet of ``codec`` a quarter of a second."""
        stream = self._out.add_data_stream(codec)
        stream.time_base = Fraction(1, 1000)
        for number, payload in enumerate(payloads):
            packet = av.Packet(payload)
            packet.pts = packet.dts = 250 * number
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 1000), stream, True
            self._packets.append(packet)
        return self

    def chapters(self) -> Builder:
        self._out.set_chapters(CHAPTERS)
        return self

    def tags(self, **tags: str) -> Builder:
        self._out.metadata.update(tags)
        return self

    def write(self, interleaved: bool = True) -> Path:
        """Not ``interleaved``: all packets of a stream, then all of the next."""
        for stream, frames in self._frames:
            for frame in [*frames, None]:
                self._packets += stream.encode(frame)
        if interleaved:
            self._packets.sort(key=lambda packet: packet.dts * packet.time_base)
        for packet in self._packets:
            self._out.mux(packet)
        self._out.close()
        return self.path


def rich_mkv(path: Path) -> Path:
    """Statement D1's file: AAC and FLAC, SRT and ASS, fonts, cover art, chapters, languages, titles, tags, stale statistics."""
    stale = {"BPS": "1", "NUMBER_OF_FRAMES-eng": "2", "_STATISTICS_WRITING_APP": "old", "NUMBER_OF_BYTES": "3"}
    return (
        Builder(path)
        .video(disposition=Disposition.default, language="jpn", title="Hauptfilm", **stale)
        .sound("aac", disposition=Disposition.default, language="deu", title="Deutsch", **stale)
        .sound("flac", seed=1, disposition=Disposition.comment, language="eng", title="Commentary")
        .text("subrip", [(100, 900, "Guten Tag"), (1000, 1900, "<i>Ende</i>")], Disposition.forced, language="deu")
        .text("ass", [(0, 500, "0,0,Default,,0,0,0,,{\\pos(5,5)}Schild")], language="eng", title="Signs")
        .cover()
        .font("a.ttf", b"first font" * 20)
        .font("b.ttf", b"second font" * 30)
        .chapters()
        .tags(title="Ein Film", ARTIST="Jemand")
        .write()
    )


def digests(path: Path) -> list[tuple[str, list[str]]]:
    """For every stream its type and the SHA-256 of each payload: of packets, or of an attachment's content."""
    with av.open(str(path)) as container:
        found: list[tuple[str, list[str]]] = []
        for stream in container.streams:
            data = [stream.data] if stream.type == "attachment" else []
            found.append((stream.type, [hashlib.sha256(d).hexdigest() for d in data]))
        for packet in container.demux():
            if packet.size:
                found[packet.stream.index][1].append(hashlib.sha256(bytes(packet)).hexdigest())
        return found


def packet_times(path: Path, index: int) -> list[Fraction]:
    """Presentation times of a stream's packets in seconds, relative to the first picture of the video that is no cover."""
    with av.open(str(path)) as container:
        video = next(v for v in container.streams.video if not v.disposition & Disposition.attached_pic)
        times: dict[int, list[Fraction]] = {}
        for packet in container.demux():
            if packet.size and packet.pts is not None:
                times.setdefault(packet.stream.index, []).append(packet.pts * packet.time_base)
        return [time - min(times[video.index]) for time in times[index]]


def heard_from(path: Path) -> tuple[Fraction, int]:
    """When the first sample that is heard is heard, relative to the first picture; and how many samples are heard."""
    with av.open(str(path)) as container:
        pictures = (frame for packet in container.demux(video=0) for frame in packet.decode())
        shown = next(pictures)
        start = shown.pts * shown.time_base
    with av.open(str(path)) as container:
        frames = [frame for packet in container.demux(audio=0) for frame in packet.decode()]
        return frames[0].pts * frames[0].time_base - start, sum(frame.samples for frame in frames)
