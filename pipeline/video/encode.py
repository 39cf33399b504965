"""Encode one segment of frames into packets, the same bytes on every machine."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import torch
from av.codec.context import Flags
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType
from torch import Tensor

from pipeline.errors import ConfigError, OutputError
from pipeline.video.cuts import KEY_FRAME_DISTANCE
from pipeline.video.frames import from_planes
from pipeline.video.header import UNSTATED
from pipeline.video.packets import PacketWriter, StoredPacket, read_packets
from pipeline.video.plan import EncodeSpec
from pipeline.video.slices import num_slices
from swinir.colour import PlaneLayout

# x264 sets the quality of a first frame without knowing what the others cost, and all that refer to it pay for that. Where it
# has just seen the first few, it chooses as in the middle of a video, and segments join without a dip in quality.
NUM_PRIMERS = {"libx264": 8}

# Frames of which a unit has the memory, at most: what its encoder looks ahead and refers to, by its slowest presets (measured,
# 4 threads), and those that wait for it.
FRAMES_HELD = {"libx264": 300, "libx265": 250, "libsvtav1": 450}
FEW_FRAMES = 60

DECODERS = {"libx264": "h264", "libx265": "hevc", "libsvtav1": "libdav1d", "ffv1": "ffv1", "png": "png"}

MOST_FRAMES_PER_SECOND = {"libsvtav1": 240}


def check_rate(codec: str, rate: Fraction) -> None:
    """ConfigError where the encoder takes no video of so many frames a second."""
    most = MOST_FRAMES_PER_SECOND.get(codec, rate)
    if rate > most:
        raise ConfigError(f"{codec} takes at most {most} frames a second, not {float(rate):.9g}; choose another --codec")


def configure(context: VideoCodecContext, spec: EncodeSpec) -> None:
    """Set an unopened encoder up. Threads are pinned: the bitstreams of x264 and x265 depend on them."""
    context.width, context.height, context.pix_fmt = spec.width, spec.height, spec.pix_fmt
    context.time_base, context.framerate = Fraction(spec.time_base), Fraction(spec.rate)
    context.thread_count = spec.threads
    if spec.sample_aspect_ratio or spec.codec == "png":  # into which FFmpeg would write 0 and 1
        context.sample_aspect_ratio = Fraction(spec.sample_aspect_ratio or 1)
    context.color_range, context.colorspace = spec.color_range, spec.color_space
    context.color_primaries, context.color_trc = spec.color_primaries, spec.color_trc
    if spec.global_header:
        context.flags |= Flags.global_header
    context.options = encoder_options(spec)


def encoder_options(spec: EncodeSpec) -> dict[str, str]:
    """Closed GOPs, constant quality, nothing in the stream that names the machine."""
    chroma = {} if spec.chroma_location == UNSTATED else {"chroma_sample_location": spec.chroma_location}
    quality = {} if spec.crf is None else {"crf": f"{spec.crf:g}"}
    preset = {} if spec.preset is None else {"preset": spec.preset}
    match spec.codec:
        case "libx264":
            # x264's AVX-512 code for mbtree gives other bits from run to run (measured, libx264 of PyAV 18.1); AVX2's does not.
            pinned = "open-gop=0:asm=avx2" if torch.backends.cpu.get_cpu_capability() == "AVX512" else "open-gop=0"
            return {**quality, **preset, **chroma, "forced-idr": "1", "x264-params": pinned + spec.hdr}
        case "libx265":
            pinned = f"pools={spec.threads}:frame-threads=2:open-gop=0:info=0:log-level=error"
            return {**quality, **preset, **chroma, "x265-params": pinned + spec.hdr}
        case "libsvtav1":
            pinned = f"lp={spec.threads}:keyint={KEY_FRAME_DISTANCE}"
            return {**quality, **preset, **chroma, "svtav1-params": pinned + spec.hdr}
        case "png":
            return {"pred": "mixed"}
        case _:
            slices = num_slices(spec.pix_fmt, spec.width, spec.height)
            return {**chroma, "level": "3", "slices": str(slices), "slicecrc": "1", "g": "1"}


def check_encoder(spec: EncodeSpec) -> None:
    """Open the encoder once. ConfigError where it refuses its settings, a preset it does not know for one."""
    check_rate(spec.codec, Fraction(spec.rate))
    context = av.CodecContext.create(spec.codec, "w")
    assert isinstance(context, VideoCodecContext)
    configure(context, spec)
    try:
        context.open()
    except (av.error.FFmpegError, ValueError) as error:
        settings = f"--preset {spec.preset} --crf {spec.crf} {spec.width}x{spec.height} {spec.pix_fmt}"
        raise ConfigError(f"{spec.codec} refuses {settings}; see the encoder's documentation for what it takes") from error


def held_bytes(spec: EncodeSpec) -> int:
    """Memory that a segment takes while four threads encode it, at most."""
    frame = spec.width * spec.height * av.VideoFormat(spec.pix_fmt).padded_bits_per_pixel // 8
    return FRAMES_HELD.get(spec.codec, FEW_FRAMES) * frame


class SegmentEncoder:
    """Frames in, a packet file out. Times are relative to the segment, so that equal pictures give equal bytes anywhere."""

    def __init__(self, path: Path, spec: EncodeSpec, layout: PlaneLayout) -> None:
        self._layout, self._spec = layout, spec
        context = av.CodecContext.create(spec.codec, "w")
        assert isinstance(context, VideoCodecContext)
        configure(context, spec)
        context.open()
        self._context = context
        self._primers: list[tuple[list[Tensor], int]] | None = [] if spec.codec in NUM_PRIMERS else None
        self._writer = PacketWriter(path)

    def write(self, planes: list[Tensor], pts: int) -> None:
        """One frame; ``pts`` in the time base, rising, of the first 0."""
        if self._primers is None:
            self._encode(planes, pts)
            return
        self._primers.append((planes, pts))
        if len(self._primers) == NUM_PRIMERS[self._spec.codec]:
            self._begin(self._primers)

    def _begin(self, first: list[tuple[list[Tensor], int]]) -> None:
        """Encode the first frames at negative times, of which nothing is kept, and then from the start."""
        self._primers = None
        stop = first[-1][1] + (first[1][1] if len(first) > 1 else 1)
        for planes, pts in first:
            self._encode(planes, pts - stop)
        for planes, pts in first:
            self._encode(planes, pts)

    def _encode(self, planes: list[Tensor], pts: int) -> None:
        frame = from_planes(planes, self._layout, self._spec.pix_fmt)
        frame.pts, frame.time_base = pts, Fraction(self._spec.time_base)
        frame.pict_type = PictureType.I if pts == 0 else PictureType.NONE
        frame.colorspace, frame.color_range = self._spec.color_space, self._spec.color_range
        frame.color_primaries, frame.color_trc = self._spec.color_primaries, self._spec.color_trc  # where PNG's come from
        self._store(self._context.encode(frame))

    def finish(self) -> bytes:
        """Drain the encoder, close the file; the stream's extradata."""
        if self._primers:
            self._begin(self._primers)
        self._store(self._context.encode(None))
        self._writer.close()
        return bytes(self._context.extradata or b"")

    def abandon(self) -> None:
        self._writer.close()

    def _store(self, packets: list[av.Packet[Any]]) -> None:
        for packet in packets:
            assert packet.pts is not None
            if packet.pts >= 0:
                self._writer.write(StoredPacket(packet.pts, packet.is_keyframe, bytes(packet)))


def verify_segment(path: Path, spec: EncodeSpec, extradata: bytes, pts: list[int]) -> None:
    """Decode a finished segment: as many frames as went in, at their times. OutputError where that is not so."""
    context = av.CodecContext.create(DECODERS[spec.codec], "r")
    assert isinstance(context, VideoCodecContext)
    if extradata:
        context.extradata = extradata
    context.width, context.height = spec.width, spec.height  # ffv1 does not carry them
    seen: list[int | None] = []
    for stored in read_packets(path):
        packet = av.Packet(stored.data)
        packet.pts, packet.time_base = stored.pts, Fraction(spec.time_base)
        seen += [frame.pts for frame in context.decode(packet)]
    seen += [frame.pts for frame in context.decode(None)]
    if seen != pts:
        raise OutputError(
            f"{spec.codec} gave {len(seen)} decodable frames for {len(pts)}, or other times; the segment is done again"
        )
