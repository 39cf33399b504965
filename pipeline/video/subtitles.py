"""Text subtitles from one container's codec into another's, through FFmpeg's own decoders and encoders."""

from __future__ import annotations

from typing import Any, cast

import av
from av.container import OutputContainer
from av.stream import Stream

# The text codec of each container, and what a conversion into it can lose.
TARGETS = {"matroska": "subrip", "mp4": "mov_text", "mov": "mov_text", "webm": "webvtt"}
SOURCES = ("mov_text", "subrip", "srt", "ass", "ssa", "webvtt", "text")
LOSSES = {
    "subrip": "text, times, bold, italics, colours and fonts kept; boxes and positions are not",
    "mov_text": "text, times, bold and italics kept; positions, effects and overlapping lines are not",
    "webvtt": "text, times, bold and italics kept; fonts, colours and positions are not",
}


def text_target(codec: str, container_format: str) -> str | None:
    """The codec that a container holds the text in; None where ``codec`` is no text or the container holds none."""
    return TARGETS.get(container_format) if codec in SOURCES else None


def needs_consent(codec: str) -> bool:
    """What an mp4's own text says, SubRip says too; every other pair may lose styles, positions or overlaps."""
    return codec != "mov_text"


class TextConverter:
    """A subtitle stream of ``out`` that holds the text of ``source`` in another codec; made before the header is written."""

    def __init__(self, out: OutputContainer, source: Stream, codec: str) -> None:
        decoder: Any = source.codec_context  # PyAV's stubs lack the subtitle context's own methods
        decoder.open(strict=False)
        stream = cast(Any, out.add_stream(codec))
        stream.time_base = stream.codec_context.time_base = source.time_base
        stream.codec_context.subtitle_header = decoder.subtitle_header
        self.stream: Stream = stream
        self._decoder, self._encoder = decoder, stream.codec_context

    def convert(self, packet: av.Packet[Any]) -> av.Packet[Any] | None:
        """The same text at the same time; None for the empty packets with which an mp4 fills the gaps between texts."""
        subtitle = self._decoder.decode2(packet)
        if subtitle is None or not len(subtitle):
            return None
        result: av.Packet[Any] = self._encoder.encode_subtitle(subtitle)
        result.pts = packet.pts if packet.pts is not None else packet.dts
        result.dts, result.duration, result.time_base = result.pts, packet.duration, packet.time_base
        result.stream, result.is_keyframe = self.stream, True
        return result
