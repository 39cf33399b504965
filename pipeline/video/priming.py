"""Samples that nobody should hear: what an encoder puts before the first sound, and how each container is told of it.

An mp4 hides them by an edit list, counted in samples. Matroska states a delay (RFC 9559, CodecDelay) and times in milliseconds.
"""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import InputContainer


def skipped_samples(packet: av.Packet[Any]) -> tuple[int, int]:
    """Samples of this packet that are not to be heard: at its start and at its end."""
    if not packet.has_sidedata("skip_samples"):
        return 0, 0
    start, end = struct.unpack("<II", bytes(packet.get_sidedata("skip_samples"))[:8])
    return start, end


class SampleClock:
    """Times of a sound's packets in samples, from times that a coarser clock has rounded; to be called in file order.

    A packet starts where the one before it ended, unless its stated time says otherwise by more than a tick.
    """

    def __init__(self, stream: AudioStream) -> None:
        self._rate, self._frame_size = stream.codec_context.sample_rate, frame_size(stream)
        self._ends_short = stream.codec_context.name == "flac"  # whose last packet holds what is left
        self._next: int | None = None
        self._length = 0

    def apply(self, packet: av.Packet[Any]) -> None:
        assert packet.time_base is not None
        samples_per_tick = packet.time_base * self._rate
        time = packet.pts if packet.pts is not None else packet.dts
        assert time is not None
        began = round(time * samples_per_tick)
        before, after = skipped_samples(packet)
        expected = -before if self._next is None and before else self._next
        start = began if expected is None or abs(expected - began) > samples_per_tick else expected
        stated = round((packet.duration or 0) * samples_per_tick)
        length = self._frame_size or stated
        if self._ends_short and 0 < stated < length - samples_per_tick:
            length = stated
        if after:  # the last packet's duration leaves them out, or does not
            length = self._length or length
        packet.time_base = Fraction(1, self._rate)
        packet.pts = packet.dts = start
        packet.duration = max(length - after, 1)
        self._next, self._length = start + length, length


def frame_size(stream: AudioStream) -> int:
    """Samples in every packet but the last; 0 where it is not known, or where packets differ."""
    context = stream.codec_context
    if context.name == "flac" and context.extradata:
        smallest, largest = struct.unpack(">HH", context.extradata[:4])  # RFC 9639, the streaminfo block
        return int(largest) if smallest == largest else 0
    return context.frame_size or {"ac3": 1536, "mp3float": 1152 if context.sample_rate >= 32000 else 576}.get(context.name, 0)


def counts_samples(stream: AudioStream) -> bool:
    """Whether the stream's ticks can state every sample."""
    assert stream.time_base is not None
    return (1 / (stream.time_base * stream.codec_context.sample_rate)).denominator == 1


# How Matroska names the codecs whose priming an mp4's edit list hides; Opus states its own.
DELAYED = {"aac": b"A_AAC", "ac3": b"A_AC3", "eac3": b"A_EAC3", "mp3float": b"A_MPEG/L3", "mp3": b"A_MPEG/L3"}


def delayed(stream: AudioStream, num_samples: int) -> InputContainer:
    """A file of one stream like ``stream`` whose header says that ``num_samples`` come before the first sound.

    It has no packets; a Matroska stream made after its template states the delay, which PyAV has no other way to set.
    """
    context = stream.codec_context
    delay_ns = round(Fraction(num_samples * 10**9, context.sample_rate))
    audio = _element("B5", struct.pack(">d", context.sample_rate)) + _element("9F", bytes([context.channels]))
    track = _element("D7", b"\1") + _element("73C5", b"\1") + _element("83", b"\2") + _element("86", DELAYED[context.name])
    track += _element("63A2", context.extradata) if context.extradata else b""
    track += _element("56AA", struct.pack(">Q", delay_ns))
    tracks = _element("1654AE6B", _element("AE", track + _element("E1", audio)))
    info = _element("1549A966", _element("2AD7B1", (1_000_000).to_bytes(3)))
    cluster = _element("1F43B675", _element("E7", b"\0"))  # FFmpeg reads headers up to the first of these
    file = _element("1A45DFA3", _element("4282", b"matroska")) + _element("18538067", info + tracks + cluster)
    return av.open(io.BytesIO(file), "r", format="matroska")


def _element(identifier: str, content: bytes) -> bytes:
    """RFC 8794: an id, a length of eight bytes, the content."""
    return bytes.fromhex(identifier) + ((1 << 56) | len(content)).to_bytes(8) + content
