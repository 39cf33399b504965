"""Clips through a video codec that shows its artifacts, as training material; the codec and its quality are drawn by chance."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import cast

import av
import numpy as np
import torch
from av.video.stream import VideoStream
from torch import Tensor

from pipeline.video.frames import from_planes, to_planes
from swinir.colour import PlaneLayout, planes_to_rgb, rgb_to_planes
from swinir.degrade import on_codes

RATE = 25  # frames a second
LAYOUT = PlaneLayout("yuv", 8, chroma_x=1, chroma_y=1)


@dataclass(frozen=True, slots=True)
class Codec:
    """An encoder, what makes it fast, the options that set its quality, and between which values they show artifacts.

    Constant quality: rate control has no time to settle in a clip of a few frames.
    """

    name: str
    options: dict[str, str]
    quality_options: tuple[str, ...]
    quality: tuple[int, int]


CODECS = (
    Codec("libx264", {"preset": "veryfast", "threads": "1"}, ("crf",), (18, 34)),
    Codec("mpeg4", {"threads": "1"}, ("qmin", "qmax"), (2, 14)),
    Codec("mpeg2video", {"threads": "1"}, ("qmin", "qmax"), (2, 14)),
    Codec("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "threads": "1", "b": "0"}, ("crf",), (24, 54)),
)


def worn(clip: Tensor, rng: np.random.Generator) -> Tensor:
    """(N, 3, H, W) float32 RGB in [0, 1], H and W even, through one of CODECS; a ``Coder`` of swinir.degrade."""
    codec = CODECS[int(rng.integers(len(CODECS)))]
    low, high = codec.quality
    return recoded(clip, codec, int(rng.integers(low, high + 1)))


def recoded(clip: Tensor, codec: Codec, quality: int) -> Tensor:
    """The clip as it is after encoding, YUV 4:2:0 of 8 bits, and decoding; same shape, on the 8-bit grid.

    Colours are converted as the video job does it: FFmpeg's own way darkens by up to two codes, which a network would learn.
    """
    height, width = clip.shape[-2:]
    options = codec.options | dict.fromkeys(codec.quality_options, str(quality))
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as out:
        stream = cast(VideoStream, out.add_stream(codec.name, rate=RATE, options=options))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in clip:
            out.mux(stream.encode(from_planes(rgb_to_planes(picture, LAYOUT), LAYOUT, "yuv420p")))
        out.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as made:
        frames = [on_codes(planes_to_rgb(to_planes(frame, LAYOUT), LAYOUT)) for frame in made.decode(video=0)]
    return torch.stack(frames)
