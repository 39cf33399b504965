"""Every frame of a video in presentation order: time, duration, checksum, key or not, decoded or repeated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.video.scenes import scene_starts
from pipeline.video.times import ExactTimes, exact_times

NO_PTS = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """Arrays of one entry per output frame; ``pts`` and ``duration`` in the stream's time base.

    ``repeated`` marks a frame that could not be decoded and shows the one before it, ``scene`` the first of a scene.
    ``decoder_pts`` are the times by which the decoder gives the frames, right or not, and NO_PTS where it has none.
    """

    pts: NDArray[np.int64]
    duration: NDArray[np.int64]
    checksum: NDArray[np.uint32]
    key: NDArray[np.bool_]
    repeated: NDArray[np.bool_]
    scene: NDArray[np.bool_]
    decoder_pts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.pts)

    def write(self, path: str) -> None:
        pq.write_table(pa.table({column.name: getattr(self, column.name) for column in fields(self)}), path)

    @classmethod
    def read(cls, path: str) -> Timeline:
        table = pq.read_table(path)
        return cls(**{name: table[name].to_numpy() for name in table.column_names})


@dataclass(slots=True)
class TimelineBuilder:
    """Collects frames as a decoder gives them, and makes exact times of what it gave."""

    pts: list[int | None] = field(default_factory=list)
    duration: list[int] = field(default_factory=list)
    checksum: list[int] = field(default_factory=list)
    key: list[bool] = field(default_factory=list)
    change: list[float] = field(default_factory=list)  # to the frame before
    missing: list[tuple[int, int | None]] = field(default_factory=list)  # frames before it, and its pts if known
    decoder_pts: list[int | None] = field(default_factory=list)  # as ``pts`` was before the clock was set right

    @property
    def num_frames(self) -> int:
        return len(self.pts)

    def add(self, pts: int | None, duration: int | None, checksum: int, key: bool, change: float = 0.0) -> None:
        self.pts.append(pts)
        self.decoder_pts.append(pts)
        self.duration.append(duration or 0)
        self.checksum.append(checksum)
        self.key.append(key)
        self.change.append(change)

    def add_missing(self, pts: int | None) -> None:
        """A frame at ``pts`` could not be decoded."""
        self.missing.append((self.num_frames, pts))

    def rebase(self, starts: Sequence[int], shifts: Sequence[int]) -> None:
        """Move the frames from each of ``starts`` on by so many ticks, and what is missing among them."""
        for start, stop, shift in zip(starts, [*starts, self.num_frames][1:], shifts, strict=True):
            self.pts[start:stop] = [None if pts is None else pts + shift for pts in self.pts[start:stop]]
            self.missing = [
                (before, pts if pts is None or not start <= before < stop else pts + shift) for before, pts in self.missing
            ]

    def build(self, frame_ticks: Fraction, trust_pts: bool) -> tuple[Timeline, ExactTimes]:
        """The timeline, and how its times were made. ``frame_ticks`` is the nominal duration of a frame in the time base.

        ``pts`` of the result rise strictly, as ``exact_times`` makes them.
        """
        if self.num_frames == 0:
            raise ValueError("a timeline needs at least one frame")
        exact = exact_times(self.pts, frame_ticks, trust_pts)
        repeated = np.zeros(self.num_frames, bool)
        timeline = Timeline(
            exact.pts,
            np.asarray(self.duration, np.int64),
            np.asarray(self.checksum, np.uint32),
            np.asarray(self.key, bool),
            repeated,
            scene_starts(self.change),
            np.array([NO_PTS if pts is None else pts for pts in self.decoder_pts], np.int64),
        )
        if self.missing:
            kept = all(was is None or was == now for was, now in zip(self.pts, exact.pts, strict=True))
            own = exact.own and self.pts == self.decoder_pts
            timeline = self._with_missing(timeline, frame_ticks, kept, own)
        return _with_durations(timeline, frame_ticks), exact

    def _with_missing(self, timeline: Timeline, frame_ticks: Fraction, kept: bool, own: bool) -> Timeline:
        """The frames that could not be decoded put in: by their own times, where the decoder's ``own`` are right, or by places.

        At those they get times between their neighbours, where all known times are ``kept``; else all are counted anew.
        """
        if own and all(pts is not None for _, pts in self.missing):
            first = int(timeline.pts[0])  # before it there is nothing to repeat
            missing = {pts for _, pts in self.missing if pts is not None and pts > first}
            times = np.array(sorted(missing - set(timeline.pts.tolist())), np.int64)
            shown = np.maximum(timeline.pts.searchsorted(times) - 1, 0)
            index = np.concatenate([np.arange(len(timeline)), shown])
            pts = np.concatenate([timeline.pts, times])
            order = np.argsort(pts, kind="stable")
            return _rows(timeline, index[order], pts[order], order >= len(timeline))
        places = np.array([before for before, _ in self.missing])
        index = np.insert(np.arange(len(timeline)), places, np.maximum(places - 1, 0))
        repeated = np.insert(np.zeros(len(timeline), bool), places, True)
        times = np.array([int(timeline.pts[0]) + round(i * frame_ticks) for i in range(len(index))], np.int64)
        if kept:
            known: list[int | None] = [None if new else int(timeline.pts[i]) for i, new in zip(index, repeated, strict=True)]
            times = exact_times(known, frame_ticks, trust_pts=True).pts
        return _rows(timeline, index, times, repeated)


def _rows(timeline: Timeline, index: NDArray[np.int64], pts: NDArray[np.int64], repeated: NDArray[np.bool_]) -> Timeline:
    """Rows ``index`` of a timeline at new times."""
    return Timeline(
        pts,
        timeline.duration[index],
        timeline.checksum[index],
        timeline.key[index] & ~repeated,
        repeated,
        timeline.scene[index] & ~repeated,
        np.where(repeated, NO_PTS, timeline.decoder_pts[index]),
    )


def _with_durations(timeline: Timeline, frame_ticks: Fraction) -> Timeline:
    """A frame lasts until the next one; the last as long as the stream says, else as the one before it."""
    duration = np.empty(len(timeline), np.int64)
    duration[:-1] = np.diff(timeline.pts)
    stated = int(timeline.duration[-1])
    duration[-1] = stated or (duration[-2] if len(timeline) > 1 else max(1, round(frame_ticks)))
    return replace(timeline, duration=duration)
