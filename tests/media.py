"""Videos made by the tests: every frame carries its own number in blocks that survive coding and upscaling."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS = 8
BLOCK = 8  # pixels


def numbered_frame(number: int, width: int, height: int) -> np.ndarray:
    """(height, width) uint8 luma: the number in binary along the top, a pattern that moves with it below."""
    y, x = np.mgrid[0:height, 0:width]
    luma = (96 + 40 * np.sin(x / 7 + number / 3) + 30 * np.cos(y / 5 - number / 4)).astype(np.uint8)
    for bit in range(BITS):
        luma[:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 220 if number >> bit & 1 else 30
    return luma


def read_number(luma: np.ndarray, scale: int = 1) -> int:
    """The number that a frame of ``numbered_frame`` carries, ``scale`` times enlarged."""
    middle, step = BLOCK * scale // 2, BLOCK * scale
    return sum(int(luma[middle, bit * step + middle] > 128) << bit for bit in range(BITS))


def write_video(
    path: Path,
    num_frames: int = 30,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    size: tuple[int, int] = (64, 48),
    rate: Fraction | int = 25,
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    options: dict[str, str] | None = None,
    with_audio: bool = False,
    tags: dict[str, int] | None = None,
    pictures: Sequence[np.ndarray] | None = None,
) -> Path:
    """A numbered video, or one of the luma ``pictures``; ``pts`` in ``time_base`` for variable rates.

    ``tags`` are attributes of the encoder.
    """
    width, height = size
    with av.open(str(path), "w") as out:
        video = out.add_stream(codec, rate=rate)
        video.width, video.height, video.pix_fmt = width, height, pix_fmt
        video.options = dict(options or {})
        if codec == "libx265" and num_frames <= 3:
            # With fewer frames than it may reorder, x265 gives decode times out of uninitialised memory.
            video.options = {**video.options, "x265-params": f"{video.options.get('x265-params', 'log-level=error')}:bframes=0"}
        if time_base:
            video.codec_context.time_base = time_base
        for name, value in (tags or {}).items():
            setattr(video.codec_context, name, value)
        audio = out.add_stream("aac", rate=48000, layout="mono") if with_audio else None
        for number in range(num_frames):
            grey = av.VideoFrame.from_ndarray(pictures[number] if pictures else numbered_frame(number, width, height), "gray")
            grey.color_range = 2 if (tags or {}).get("color_range") == 2 else 1
            frame = grey.reformat(format=pix_fmt, dst_color_range=grey.color_range)
            if pts is not None:
                frame.pts, frame.time_base = pts[number], time_base
            else:
                frame.pts = None
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if audio is not None:
            _write_noise(out, audio, num_frames / float(rate))
    return path


def _write_noise(out: av.container.OutputContainer, audio: av.AudioStream, duration_s: float) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, (1, round(duration_s * 48000))).astype(np.float32)
    for start in range(0, samples.shape[1], 1024):
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[:, start : start + 1024]), "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        out.mux(audio.encode(frame))
    out.mux(audio.encode(None))


def decoded(path: Path) -> list[av.VideoFrame]:
    """Every frame of the best video stream, drain included."""
    with av.open(str(path)) as container:
        video = container.streams.best("video")
        return [frame for packet in container.demux(video) for frame in packet.decode()]


def times(path: Path) -> list[Fraction]:
    """Presentation times from the first frame on, exact."""
    frames = decoded(path)
    return [(frame.pts - frames[0].pts) * frame.time_base for frame in frames]


def numbers(path: Path, scale: int = 1) -> list[int]:
    return [read_number(luma(frame), scale) for frame in decoded(path)]


def luma(frame: av.VideoFrame) -> np.ndarray:
    plane = frame.planes[0]
    wide = max(component.bits for component in frame.format.components) > 8
    data = np.frombuffer(plane, np.uint16 if wide else np.uint8).reshape(plane.height, -1)[:, : plane.width]
    return data >> 2 if wide else data


def payloads(path: Path, kind: str) -> list[bytes]:
    """The packets of the first stream of a kind."""
    with av.open(str(path)) as container:
        stream = next(s for s in container.streams if s.type == kind)
        return [bytes(packet) for packet in container.demux(stream) if packet.size]
