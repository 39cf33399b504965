"""A short clip with picture and sound, drawn here, for the demonstration and for tests."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.video.stream import VideoStream
from PIL import Image, ImageDraw, ImageFont

AUDIO_RATE = 48_000


def write_sample(path: Path, num_frames: int = 48, size: tuple[int, int] = (192, 144), rate: int = 24) -> Path:
    """An H.264 clip with a 440 Hz tone in AAC: text, fine lines, a gradient and something that moves."""
    with av.open(str(path), "w") as out:
        video, audio = out.add_stream("libx264", rate=rate), out.add_stream("aac", rate=AUDIO_RATE, layout="mono")
        assert isinstance(video, VideoStream)
        assert isinstance(audio, AudioStream)
        video.width, video.height = size
        video.pix_fmt = "yuv420p"
        video.options = {"crf": "12", "threads": "1"}
        audio.metadata["language"] = "eng"
        out.metadata["title"] = "SwinIR demonstration"
        for index in range(num_frames):
            out.mux(video.encode(av.VideoFrame.from_ndarray(np.asarray(picture(index, size)), "rgb24")))
        out.mux(video.encode(None))
        _write_tone(out, audio, num_frames / rate)
    return path


def picture(index: int, size: tuple[int, int]) -> Image.Image:
    """Frame ``index``, drawn at four times the size and reduced, so that its edges are as soft as a camera's."""
    width, height = size[0] * 4, size[1] * 4
    sky = np.linspace((40, 70, 130), (230, 190, 150), height)[:, None].repeat(width, axis=1)
    page = Image.fromarray(sky.astype(np.uint8))
    draw = ImageDraw.Draw(page)
    for i in range(24):  # a fan of fine lines
        angle = math.pi * i / 24
        draw.line((width // 2, height, width // 2 + width * math.cos(angle), height - width * math.sin(angle)), (70, 50, 90), 5)
    x = (index * 12) % (width + 200) - 100
    draw.ellipse((x - 90, 120, x + 90, 300), fill=(250, 220, 90), outline=(120, 60, 20), width=8)
    draw.text((40, height - 150), "SwinIR: every frame", fill="white", font=ImageFont.load_default(size=64))
    draw.text((40, height - 75), f"frame {index:03d}", fill=(20, 20, 30), font=ImageFont.load_default(size=52))
    return page.resize(size, Image.Resampling.LANCZOS)


def _write_tone(out: av.container.OutputContainer, audio: AudioStream, duration_s: float) -> None:
    samples = np.sin(2 * math.pi * 440 * np.arange(round(duration_s * AUDIO_RATE)) / AUDIO_RATE).astype(np.float32)[None] * 0.2
    for start in range(0, samples.shape[1], 1024):
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[:, start : start + 1024]), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = AUDIO_RATE, start, Fraction(1, AUDIO_RATE)
        out.mux(audio.encode(frame))
    out.mux(audio.encode(None))
