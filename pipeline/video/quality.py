"""How a larger video moves beside its source: flicker that the source does not have, and PSNR where the truth is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import repeat
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.errors import ConfigError
from pipeline.video.colours import matrix_policy
from pipeline.video.frames import layout_of
from pipeline.video.info import VideoInfo
from pipeline.video.probe import probe
from pipeline.video.reader import read_range
from pipeline.video.sequence import SequenceFile, open_input
from pipeline.video.timeline import Timeline
from swinir.colour import LUMA_WEIGHTS, PlaneLayout, yuv_rows
from swinir.metrics import psnr


class FrameQuality(NamedTuple):
    """One frame of a result beside its source. Changes are since the frame before, None for the first frame.

    ``source_change`` is the mean absolute difference of the source's luma between the two frames, pixel by pixel without motion
    compensation; ``result_change`` the same of the result's luma, first reduced to the source's size by averaging boxes. Both
    in codes of 8 bits, full range. ``flicker`` is result_change / source_change: 1 changes as the source does, more
    shimmers; None where the source stands still. ``psnr`` is in dB on the luma of the result against the truth, infinite where
    they are equal, None without a truth.
    """

    frame: int
    time_s: float
    source_change: float | None
    result_change: float | None
    flicker: float | None
    psnr: float | None


@dataclass(frozen=True, slots=True)
class OpenedVideo:
    """A video that was decoded once: where it is, what it is, its frames, and how they hold their samples."""

    name: str
    info: VideoInfo
    timeline: Timeline
    layout: PlaneLayout

    @property
    def code(self) -> float:
        """How many codes of 8 bits, full range, one of its luma codes is."""
        return 255 / self.layout.luma_scale[1]


def open_video(name: str) -> OpenedVideo:
    """Decode a file, URL or folder of images once. Raises MediaError where that cannot be done."""
    with open_input(name, None) as media:
        info, timeline = probe(media, name)
        if isinstance(media, SequenceFile):
            info = media.completed(info)
    matrix, _ = matrix_policy(info, info.width, info.height, [])
    return OpenedVideo(name, info, timeline, layout_of(info.pix_fmt, matrix, info.color_range == 2))


def check_match(source: OpenedVideo, result: OpenedVideo, truth: OpenedVideo | None) -> None:
    """Raises ConfigError where frames or sizes do not belong to each other."""
    for video in (result, truth):
        if video and len(video.timeline) != len(source.timeline):
            raise ConfigError(
                f"{video.name} has {len(video.timeline)} frames, {source.name} has {len(source.timeline)}: frames are compared "
                "one by one; `swinir inspect --verify` says what differs"
            )
    if result.info.width < source.info.width or result.info.height < source.info.height:
        raise ConfigError(
            f"{result.name} is {size_of(result)}, smaller than {source.name}, {size_of(source)}; give the source first"
        )
    if truth and size_of(truth) != size_of(result):
        raise ConfigError(f"{truth.name} is {size_of(truth)}, but {result.name} is {size_of(result)}; the truth has its size")


def size_of(video: OpenedVideo) -> str:
    return f"{video.info.width}x{video.info.height}"


def measure_frames(source: OpenedVideo, result: OpenedVideo, truth: OpenedVideo | None) -> Iterator[FrameQuality]:
    """Every frame in order; two frames of each video are held at a time. MediaError where a file decodes otherwise now."""
    size = (source.info.height, source.info.width)
    times_s = (source.timeline.pts - source.timeline.pts[0]) * float(Fraction(source.info.time_base))
    truths = lumas(truth) if truth else repeat(None, len(source.timeline))
    before: tuple[Tensor, Tensor] | None = None
    for number, (small, large, true) in enumerate(zip(lumas(source), lumas(result), truths, strict=True)):
        now = (small, boxed(large, size))
        psnr_db = None if true is None or truth is None else luma_psnr(large, result, true, truth)
        if before is None:
            yield FrameQuality(number, float(times_s[number]), None, None, None, psnr_db)
        else:
            of_source, of_result = (float((a - b).abs().mean()) for a, b in zip(now, before, strict=True))
            of_source, of_result = of_source * source.code, of_result * result.code
            flicker = of_result / of_source if of_source else None
            yield FrameQuality(number, float(times_s[number]), of_source, of_result, flicker, psnr_db)
        before = now


def lumas(video: OpenedVideo) -> Iterator[Tensor]:
    """(H, W) float64 luma of every frame, in its own codes, so that sums of them are exact; of RGB by its matrix."""
    frames = read_range(
        partial(open_input, video.name, None), video.name, video.info, video.timeline, video.layout, 0, len(video.timeline)
    )
    for _, planes in frames:
        if video.layout.kind == "rgb":
            shares = yuv_rows(video.layout.matrix if video.layout.matrix in LUMA_WEIGHTS else "bt709")[0]
            yield torch.stack([share * plane.double() for share, plane in zip(shares, planes, strict=False)]).sum(0)
        else:
            yield planes[0].double()


def boxed(luma: Tensor, size: tuple[int, int]) -> Tensor:
    """(H, W) -> ``size``, each pixel the mean of the box of pixels that it stands for."""
    return F.adaptive_avg_pool2d(luma[None, None], size)[0, 0]


def luma_psnr(a: Tensor, of_a: OpenedVideo, b: Tensor, of_b: OpenedVideo) -> float:
    """PSNR in dB of two lumas in the codes of their videos."""
    x, y = (((luma - video.layout.luma_scale[0]) * video.code).numpy() for luma, video in ((a, of_a), (b, of_b)))
    return psnr(x, y)


def summary(frames: Sequence[FrameQuality]) -> dict[str, float | int | None]:
    """Of a whole video: flicker as the ratio of mean changes, where it is worst, and PSNR as the mean and the least of frames.

    The mean is infinite where any frame equals the truth; without a truth both are None.
    """
    pairs = [(f.source_change, f.result_change) for f in frames if f.source_change is not None and f.result_change is not None]
    source, result = (float(np.mean(column)) for column in zip(*pairs, strict=True)) if pairs else (0.0, 0.0)
    worst = max((f for f in frames if f.flicker is not None), key=lambda f: f.flicker or 0, default=None)
    psnrs = [f.psnr for f in frames if f.psnr is not None]
    mean_db, least_db = (float(np.mean(psnrs)), min(psnrs)) if psnrs else (None, None)
    return {
        "frames": len(frames), "flicker": result / source if source else None,
        "source_change": source, "result_change": result,
        "worst_flicker": worst.flicker if worst else None, "worst_frame": worst.frame if worst else None,
        "psnr": mean_db, "least_psnr": least_db,
    }  # fmt: skip
