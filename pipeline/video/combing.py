"""Whether pictures are woven of two fields, seen from the pictures themselves, whatever their headers say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import av
import numpy as np
from numpy.typing import NDArray

from pipeline.video.frames import rows, sample_bytes
from pipeline.video.packing import REPACKED, Samples, unpack

Verdict = Literal["top first", "bottom first", "whole", "unclear"]

EVERY = 3  # pairs of frames that are looked at; no factor of 5, the period of telecine
COLUMNS = 256  # that are looked at, or up to twice as many
LEAST_ROWS = 16
LEAST_ROUGHNESS = 0.25  # of 255, a mean over all triples of rows: less is black, or coding noise
LEAST_CHANGE = 0.03  # of the roughness: less is a still picture, or noise


@dataclass(frozen=True, slots=True)
class Interlacing:
    """What speaks for and against fields: frames whose header says so, and sampled moving pictures by what they show.

    ``combed`` and ``whole`` are of frames that do not say that they are interlaced, ``flagged_combed`` and ``flagged_whole`` of
    those that do; ``bottom_first`` counts the combed of both whose second field comes first.
    """

    flagged: int = 0
    combed: int = 0
    whole: int = 0
    flagged_combed: int = 0
    flagged_whole: int = 0
    bottom_first: int = 0


class CombMeter:
    """Looks at pairs of neighbouring frames as they are decoded; a small part of what decoding costs."""

    def __init__(self) -> None:
        self._num_frames = 0
        self._last: NDArray[np.int16] | None = None
        self._counts = dict.fromkeys(Interlacing.__dataclass_fields__, 0)

    def add(self, frame: av.VideoFrame) -> None:
        flagged = bool(frame.interlaced_frame)
        self._counts["flagged"] += flagged
        phase = self._num_frames % EVERY
        self._num_frames += 1
        if phase == 0:
            self._last = luma(frame)
        elif phase == 1 and self._last is not None:
            now = luma(frame)
            if now.shape == self._last.shape:
                self._count(woven(self._last, now), flagged)

    def _count(self, verdict: Verdict, flagged: bool) -> None:
        if verdict != "unclear":
            name = "whole" if verdict == "whole" else "combed"
            self._counts[f"flagged_{name}" if flagged else name] += 1
            self._counts["bottom_first"] += verdict == "bottom first"

    @property
    def seen(self) -> Interlacing:
        return Interlacing(**self._counts)


def luma(frame: av.VideoFrame) -> NDArray[np.int16]:
    """Some columns of luma, or of green, on a scale of 255."""
    name = REPACKED.get(frame.format.name)
    if name:
        channels = unpack(frame)
        samples: Samples = channels["Y"] if "Y" in channels else channels["G"]
    else:
        samples = rows(frame.planes[0], sample_bytes(frame.format))
        if samples.shape[1] > frame.width:
            samples = np.ascontiguousarray(samples).view(">u2" if frame.format.is_big_endian else "<u2")
    depth = av.VideoFormat(name or frame.format.name).components[0].bits
    return (samples[:, :: max(1, frame.width // COLUMNS)] >> max(0, depth - 8)).astype(np.int16)


def woven(before: NDArray[np.int16], after: NDArray[np.int16]) -> Verdict:
    """What two neighbouring frames (H, W) are made of; "unclear" where too little moves.

    Fields of one moment fit each other: woven into one picture, their rows are smooth. A whole picture's own fields fit better
    than those of two frames. Of an interlaced one, a field fits that of the frame beside it, half a frame away, as well as its
    own, and the other one, three halves away, worse. In still pictures, stripes and noise among them, all fit alike.
    """
    height = before.shape[0] // 2 * 2
    if height < LEAST_ROWS:
        return "unclear"
    top, bottom, next_top, next_bottom = before[:height:2], before[1:height:2], after[:height:2], after[1:height:2]
    own = (roughness(top, bottom) + roughness(next_top, next_bottom)) / 2
    inner, outer = roughness(next_top, bottom), roughness(top, next_bottom)
    best, worst = min(inner, outer), max(inner, outer)
    own, change = max(own, 1e-9), max(worst - own, own - best)
    if worst < LEAST_ROUGHNESS or change < LEAST_CHANGE * own:
        return "unclear"
    if worst < 0.95 * own:
        return "unclear"  # fine lettering that scrolls by a row fits anything better than itself
    if best < 0.95 * own or best - own < 0.25 * (worst - own):
        return "top first" if inner < outer else "bottom first"
    return "whole" if best - own > 0.5 * (worst - own) else "unclear"


def roughness(top: NDArray[np.int16], bottom: NDArray[np.int16]) -> float:
    """How far each row of two fields woven together lies from the mean of its neighbours; a mean over all samples."""
    inside = np.abs(2 * bottom[:-1] - top[:-1] - top[1:]).sum(dtype=np.int64)
    inside += np.abs(2 * top[1:] - bottom[:-1] - bottom[1:]).sum(dtype=np.int64)
    return float(inside) / (2 * max(1, top[1:].size))
