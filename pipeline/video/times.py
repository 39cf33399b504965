"""Exact, rising frame times from what decoders give: clocks that wrap, jump, stand still or are not there."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_LISTED = 1000  # repaired frames, each by itself
WRAP_TICKS = 2**33  # MPEG-2 systems (ISO 13818-1, 2.4.3.7) count 90 kHz in 33 bits


@dataclass(frozen=True, slots=True)
class ExactTimes:
    """One time per frame, strictly rising, in the stream's ticks.

    ``own`` says that they are the decoder's, every one. ``repaired`` are the frames whose times are not: (frame, was, now),
    without those that only moved with a clock that was set right.
    """

    pts: NDArray[np.int64]
    own: bool
    repaired: list[tuple[int, int | None, int]]
    guesses: list[str]


@dataclass(frozen=True, slots=True)
class TimeRepairs:
    """Where a video's times are not those that it was read with; all in its ticks, frames by their final numbers.

    ``times`` are the first of ``num_times`` frames as (frame, was, now). ``jumps`` are (frame, time it had, ticks): from there
    on all has been moved by so many, as have, by ``packet_jumps``, (stream, number of its packet, ticks). ``pauses`` are
    (frame, ticks it is shown), left as they are.
    """

    num_times: int = 0
    times: tuple[tuple[int, int | None, int], ...] = ()
    jumps: tuple[tuple[int, int, int], ...] = ()
    packet_jumps: tuple[tuple[int, int, int], ...] = ()
    pauses: tuple[tuple[int, int], ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {key: [list(row) for row in value] if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def report(self) -> dict[str, Any]:
        """The same by names, as a report lists it."""
        return {
            "num_times_repaired": self.num_times,
            "times_repaired": [{"frame": frame, "was": was, "now": now} for frame, was, now in self.times],
            "clock_jumps": [{"frame": frame, "was": was, "ticks_added": ticks} for frame, was, ticks in self.jumps],
            "pauses": [{"frame": frame, "ticks": ticks} for frame, ticks in self.pauses[:MAX_LISTED]],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TimeRepairs:
        fields: dict[str, Any] = {key: tuple(map(tuple, v)) if isinstance(v, list) else v for key, v in data.items()}
        return cls(**fields)


def exact_times(pts: Sequence[int | None], frame_ticks: Fraction, trust_pts: bool) -> ExactTimes:
    """Times that rise strictly. Missing ones are set between their neighbours, where most are known and rise; else missing or
    disordered ones are counted at the nominal rate. A few that stand still or step back are moved up by a tick.
    """
    known = [value for value in pts if value is not None]
    num_backward = sum(b <= a for a, b in itertools.pairwise(known))
    if trust_pts and not num_backward and len(pts) // 2 < len(known) < len(pts):
        times = between(pts, frame_ticks)
        if bool((np.diff(times) > 0).all()):
            return _result(pts, times, [f"{len(pts) - len(known)} frames have no time; shown between their neighbours"])
    if len(known) < len(pts) or not trust_pts or num_backward > len(pts) // 20:
        first = known[0] if known and trust_pts else 0
        times = np.array([first + round(i * frame_ticks) for i in range(len(pts))], np.int64)
        if len(known) == len(pts) and np.array_equal(times - times[0], np.array(known) - known[0]):
            return ExactTimes(np.array(known, np.int64), True, [], [])
        return _result(pts, times, [f"frame times are missing or disordered; counted at {float(frame_ticks):g} ticks a frame"])
    times = np.array(known, np.int64)
    for i in range(1, len(times)):
        times[i] = max(times[i], times[i - 1] + 1)
    return _result(pts, times, [f"{num_backward} frame times did not rise and were moved up"] if num_backward else [])


def between(pts: Sequence[int | None], frame_ticks: Fraction) -> NDArray[np.int64]:
    """Missing times evenly between those around them; before the first and after the last, ``frame_ticks`` apart."""
    frames = [frame for frame, value in enumerate(pts) if value is not None]
    known = [value for value in pts if value is not None]
    first, last = frames[0], frames[-1]
    times = np.rint(np.interp(np.arange(len(pts)), frames, known)).astype(np.int64)
    times[:first] = [known[0] - round((first - frame) * frame_ticks) for frame in range(first)]
    times[last + 1 :] = [known[-1] + round((frame - last) * frame_ticks) for frame in range(last + 1, len(pts))]
    return times


def _result(pts: Sequence[int | None], times: NDArray[np.int64], guesses: list[str]) -> ExactTimes:
    repaired = [(i, was, int(now)) for i, (was, now) in enumerate(zip(pts, times, strict=True)) if was != now]
    return ExactTimes(times, not repaired, repaired, guesses)


def unwrapped(ticks: int, before: int) -> int:
    """A 33-bit time as the number nearest to the one ``before``."""
    return ticks - WRAP_TICKS * ((ticks - before + WRAP_TICKS // 2) // WRAP_TICKS)


def unwrap(pts: Sequence[int | None]) -> list[int | None]:
    """Times on from the first one, whatever turns of the clock FFmpeg took them for."""
    before, result = None, list[int | None]()
    for value in pts:
        if value is not None:
            before = value if before is None else unwrapped(value, before)
        result.append(None if value is None else before)
    return result


def jumps_back(pts: Sequence[int | None], frame_ticks: Fraction) -> list[int]:
    """Frames at which the clock has been set back: by more than the frame or two that disorder makes."""
    jumps, latest = [], None
    for frame, value in enumerate(pts):
        if value is None:
            continue
        if latest is not None and latest - value > 2 * frame_ticks:
            jumps.append(frame)
            latest = value
        latest = value if latest is None else max(latest, value)
    return jumps


def long_pauses(pts: NDArray[np.int64], frame_ticks: Fraction, second: Fraction) -> list[tuple[int, int]]:
    """(frame, ticks) of frames shown far longer than the rest: over ten nominal frames and over two seconds.

    They may be meant, a slide in a talk, or be what a loss has left.
    """
    shown = np.diff(pts)
    long = np.flatnonzero(shown > max(float(10 * frame_ticks), float(2 * second)))
    return [(int(frame), int(shown[frame])) for frame in long]
