"""Every frame of a video in presentation order: time, duration, checksum, key or not, decoded or repeated."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.errors import MediaError


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """Arrays of one entry per output frame; ``pts`` and ``duration`` in the stream's time base.

    ``repeated`` marks a frame that could not be decoded and shows the one before it. ``seekable`` says whether ``pts`` are the
    decoder's own, so that a reader may seek by them; otherwise frames can only be counted from the start.
    """

    pts: NDArray[np.int64]
    duration: NDArray[np.int64]
    checksum: NDArray[np.uint32]
    key: NDArray[np.bool_]
    repeated: NDArray[np.bool_]
    seekable: bool

    def __len__(self) -> int:
        return len(self.pts)

    def write(self, path: str) -> None:
        columns = {name: getattr(self, name) for name in ("pts", "duration", "checksum", "key", "repeated")}
        table = pa.table(columns).replace_schema_metadata({"seekable": str(int(self.seekable))})
        pq.write_table(table, path)

    @classmethod
    def read(cls, path: str) -> Timeline:
        table = pq.read_table(path)
        columns = {name: table[name].to_numpy() for name in table.column_names}
        return cls(**columns, seekable=table.schema.metadata[b"seekable"] == b"1")


@dataclass(slots=True)
class TimelineBuilder:
    """Collects frames as a decoder gives them, and makes exact times of what it gave."""

    pts: list[int | None] = field(default_factory=list)
    duration: list[int] = field(default_factory=list)
    checksum: list[int] = field(default_factory=list)
    key: list[bool] = field(default_factory=list)
    missing: list[tuple[int, int | None]] = field(default_factory=list)  # frames before it, and its pts if known

    @property
    def num_frames(self) -> int:
        return len(self.pts)

    def add(self, pts: int | None, duration: int | None, checksum: int, key: bool) -> None:
        self.pts.append(pts)
        self.duration.append(duration or 0)
        self.checksum.append(checksum)
        self.key.append(key)

    def add_missing(self, pts: int | None) -> None:
        """A frame at ``pts`` could not be decoded."""
        self.missing.append((self.num_frames, pts))

    def build(self, frame_ticks: Fraction, trust_pts: bool) -> tuple[Timeline, list[str]]:
        """The timeline, and what had to be guessed. ``frame_ticks`` is the nominal duration of a frame in the time base.

        ``pts`` of the result rise strictly. Missing or disordered times are replaced by counting at the nominal rate; a few
        that stand still or step back are moved up by a tick.
        """
        if self.num_frames == 0:
            raise ValueError("a timeline needs at least one frame")
        pts, guesses, seekable = exact_times(self.pts, frame_ticks, trust_pts)
        repeated = np.zeros(self.num_frames, bool)
        timeline = Timeline(
            pts,
            np.asarray(self.duration, np.int64),
            np.asarray(self.checksum, np.uint32),
            np.asarray(self.key, bool),
            repeated,
            seekable,
        )
        if self.missing:
            timeline = self._with_missing(timeline, frame_ticks)
        return _with_durations(timeline, frame_ticks), guesses

    def _with_missing(self, timeline: Timeline, frame_ticks: Fraction) -> Timeline:
        """The frames that could not be decoded put in: by their own times, or by their places where times are counted."""
        if timeline.seekable and all(pts is not None for _, pts in self.missing):
            times = np.array(sorted({pts for _, pts in self.missing if pts is not None} - set(timeline.pts.tolist())), np.int64)
            shown = np.maximum(timeline.pts.searchsorted(times) - 1, 0)
            index = np.concatenate([np.arange(len(timeline)), shown])
            pts = np.concatenate([timeline.pts, times])
            order = np.argsort(pts, kind="stable")
            return _rows(timeline, index[order], pts[order], order >= len(timeline))
        places = np.array([before for before, _ in self.missing])
        index = np.insert(np.arange(len(timeline)), places, np.maximum(places - 1, 0))
        repeated = np.insert(np.zeros(len(timeline), bool), places, True)
        counted = [int(timeline.pts[0]) + round(i * frame_ticks) for i in range(len(index))]
        return _rows(timeline, index, np.array(counted, np.int64), repeated, seekable=False)


def _rows(
    timeline: Timeline, index: NDArray[np.int64], pts: NDArray[np.int64], repeated: NDArray[np.bool_], seekable: bool = True
) -> Timeline:
    """Rows ``index`` of a timeline at new times."""
    return Timeline(
        pts, timeline.duration[index], timeline.checksum[index], timeline.key[index] & ~repeated, repeated, seekable
    )


def exact_times(pts: Sequence[int | None], frame_ticks: Fraction, trust_pts: bool) -> tuple[NDArray[np.int64], list[str], bool]:
    """Strictly rising times, what was guessed, and whether they are the decoder's own.

    Raises MediaError where a clock that is to be trusted jumps back by more than a frame or two.
    """
    known = [value for value in pts if value is not None]
    if trust_pts and known:
        back = np.maximum.accumulate(known) - np.array(known)
        if back.max() > 2 * frame_ticks:
            frame = int(np.flatnonzero(back > 2 * frame_ticks)[0])
            raise MediaError(f"frame times jump back by {back[frame]} ticks at frame {frame}; split the source there first")
    num_backward = sum(b <= a for a, b in itertools.pairwise(known))
    if len(known) < len(pts) or not trust_pts or num_backward > len(pts) // 20:
        first = known[0] if known and trust_pts else 0
        times = np.array([first + round(i * frame_ticks) for i in range(len(pts))], np.int64)
        if len(known) == len(pts) and np.array_equal(times - times[0], np.array(known) - known[0]):
            return np.array(known, np.int64), [], True
        return times, [f"frame times are missing or disordered; counted at {float(frame_ticks):g} ticks a frame"], False
    times = np.array(known, np.int64)
    if not num_backward:
        return times, [], True
    for i in range(1, len(times)):
        times[i] = max(times[i], times[i - 1] + 1)
    return times, [f"{num_backward} frame times did not rise and were moved up"], False


def _with_durations(timeline: Timeline, frame_ticks: Fraction) -> Timeline:
    """A frame lasts until the next one; the last as long as the stream says, else as the one before it."""
    duration = np.empty(len(timeline), np.int64)
    duration[:-1] = np.diff(timeline.pts)
    stated = int(timeline.duration[-1])
    duration[-1] = stated or (duration[-2] if len(timeline) > 1 else max(1, round(frame_ticks)))
    return Timeline(timeline.pts, duration, timeline.checksum, timeline.key, timeline.repeated, timeline.seekable)
