"""Where a new scene begins: frames that an encoder starts anew at anyway, so that a cut there costs nothing."""

from __future__ import annotations

from collections.abc import Sequence

import av
import numpy as np
from numpy.typing import NDArray

from pipeline.video.frames import rows, sample_bytes

BLOCK = 16  # samples that are averaged; one row in eight is looked at
LEAST_CHANGE = 6.0  # of 255, of the blocks' means
LEAST_RATIO = 3.0  # to the frames around: a fast pan changes much in every frame, a flash in two
NEIGHBOURS = 2  # on either side


class SceneMeter:
    """How much each frame differs from the one before it."""

    def __init__(self) -> None:
        self._last: NDArray[np.float32] | None = None

    def change(self, frame: av.VideoFrame) -> float:
        """Mean absolute difference of the first plane to the last frame's, on a scale of 255; 0 where sizes differ."""
        blocks = block_means(frame)
        last, self._last = self._last, blocks
        return float(np.abs(blocks - last).mean()) if last is not None and last.shape == blocks.shape else 0.0


def block_means(frame: av.VideoFrame) -> NDArray[np.float32]:
    """Means of short runs of samples in some rows of the first plane, on a scale of 255."""
    num_bytes = sample_bytes(frame.format)
    samples = rows(frame.planes[0], num_bytes)[::8]
    if num_bytes == 2:
        samples = np.ascontiguousarray(samples).view(np.uint16)
    width = max(1, min(BLOCK, samples.shape[1]))
    blocks = samples[:, : samples.shape[1] // width * width].reshape(len(samples), -1, width)
    bits = max(component.bits for component in frame.format.components) if num_bytes == 2 else 8
    means: NDArray[np.float32] = blocks.mean(axis=2, dtype=np.float32) / 2.0 ** (bits - 8)
    return means


def scene_starts(change: Sequence[float]) -> NDArray[np.bool_]:
    """Which frames begin a scene, from how much each differs from the one before it."""
    values = np.asarray(change, np.float64)
    if not len(values):
        return np.zeros(0, bool)
    padded = np.pad(values, NEIGHBOURS, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * NEIGHBOURS + 1)
    around = np.delete(windows, NEIGHBOURS, axis=1).max(axis=1)
    starts: NDArray[np.bool_] = (values >= LEAST_CHANGE) & (values >= LEAST_RATIO * around)
    return starts
