"""Clips through a video codec that shows its artifacts, as training material; codec and bit rate are drawn by chance."""

from __future__ import annotations

import io
import itertools
import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, cast

import av
import numpy as np
import torch
from av.video.stream import VideoStream
from torch import Tensor

from pipeline.video.frames import from_planes, to_planes
from swinir.colour import PlaneLayout, planes_to_rgb, rgb_to_planes
from swinir.train.degrade import on_codes

RATE = 25  # frames a second
LAYOUT = PlaneLayout("yuv", 8, chroma_x=1, chroma_y=1)


@dataclass(frozen=True, slots=True)
class Codec:
    """An encoder, what makes it fast, the options that set its quality, and between which values, better ones first.

    ``bits`` are the range of rates to draw from, for a pixel of a frame: what 14 clips of Set14 at half its size take on
    average, libx264 at crf 34 and 18, MPEG-4 and MPEG-2 at quantizers 14 and 2, VP9 at crf 52 and 24.
    """

    name: str
    options: dict[str, str]
    quality_options: tuple[str, ...]
    quality: tuple[int, int]
    bits: tuple[float, float]


# With its macroblock tree x264 now and then makes another file of the same small pictures, which a seed must not.
X264 = {"preset": "veryfast", "threads": "1", "x264-params": "mbtree=0"}
CODECS = (
    Codec("libx264", X264, ("crf",), (12, 44), (0.15, 0.69)),
    Codec("mpeg4", {"threads": "1"}, ("qmin", "qmax"), (2, 24), (0.19, 1.3)),
    Codec("mpeg2video", {"threads": "1"}, ("qmin", "qmax"), (2, 24), (0.30, 1.7)),
    Codec("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "threads": "1", "b": "0"}, ("crf",), (12, 62), (0.23, 0.93)),
)


def worn(clip: Tensor, rng: np.random.Generator) -> Tensor:
    """(N, 3, H, W) float32 RGB in [0, 1], H and W even, through one of CODECS; a ``Coder`` of swinir.train.degrade."""
    codec = CODECS[int(rng.integers(len(CODECS)))]
    low, high = codec.bits
    return at_bit_rate(clip, codec, math.exp(rng.uniform(math.log(low), math.log(high))))


def at_bit_rate(clip: Tensor, codec: Codec, bits_per_pixel: float) -> Tensor:
    """The clip at a constant quality that takes no more than so many bits where the next better one takes more.

    At the worst quality where the search finds none, at the best where that keeps to the rate. By an encoder's own control the
    rate would have no time to settle in a clip of a few frames.
    """
    planes = [rgb_to_planes(picture, LAYOUT) for picture in clip]
    allowed_bytes = bits_per_pixel * clip[:, 0].numel() / 8
    files = cache(partial(encoded, planes, codec))
    low, high = codec.quality
    best = bisect_left(range(low, high), True, key=lambda quality: files(quality)[1] <= allowed_bytes)
    return decoded(files(low + best)[0])


def encoded(planes: Sequence[list[Tensor]], codec: Codec, quality: int) -> tuple[bytes, int]:
    """A Matroska file of the frames, and how many bytes the codec has taken for them."""
    file, num_bytes = io.BytesIO(), 0
    options = codec.options | dict.fromkeys(codec.quality_options, str(quality))
    with av.open(file, "w", format="matroska") as out:
        stream = cast(VideoStream, out.add_stream(codec.name, rate=RATE, options=options))
        stream.height, stream.width = planes[0][0].shape[-2:]
        stream.pix_fmt = "yuv420p"
        frames = (from_planes(frame, LAYOUT, "yuv420p") for frame in planes)
        for packet in itertools.chain.from_iterable(map(stream.encode, itertools.chain(frames, [None]))):
            num_bytes += packet.size - settings_bytes(packet)
            out.mux(packet)
    return file.getvalue(), num_bytes


def settings_bytes(packet: av.Packet[Any]) -> int:
    """How many bytes x264 takes to name its settings, before the first frame: as many as a small frame."""
    data = bytes(packet)
    start = data.find(b"\0\0\1\x06")  # supplemental enhancement information (H.264, 7.4.1)
    return 0 if b"x264 - core" not in data else data.find(b"\0\0\1", start + 4) - start


def decoded(file: bytes) -> Tensor:
    """(N, 3, H, W) float32 RGB in [0, 1], on the 8-bit grid.

    Colours are converted as the video job does it: FFmpeg's own way darkens by up to two codes, which a network would learn.
    """
    with av.open(io.BytesIO(file), "r") as made:
        frames = [on_codes(planes_to_rgb(to_planes(frame, LAYOUT), LAYOUT)) for frame in made.decode(video=0)]
    return torch.stack(frames)
