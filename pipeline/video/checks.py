"""The kinds of comparison between two files: values, times, whole series of times."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Literal, NamedTuple

from pipeline.video.description import StreamDescription

Status = Literal["ok", "differs", "lost", "n/a"]


class Check(NamedTuple):
    """One comparison: ``lost`` is what the source has and the result has not; ``n/a`` what neither has."""

    name: str
    status: Status
    detail: str


class Pair(NamedTuple):
    source: StreamDescription
    result: StreamDescription

    @property
    def name(self) -> str:
        return f"{self.source.type} {self.source.index}"

    @property
    def tolerance(self) -> Fraction:
        """Seconds that a time may be off: none where the result's ticks hold the source's, else one of the result's."""
        ticks = self.source.time_base / self.result.time_base
        return Fraction(0) if ticks.denominator == 1 else self.result.time_base


def series_check(name: str, pair: Pair, old: Sequence[int], new: Sequence[int], old_zero: int, new_zero: int) -> Check:
    times = [
        [(t - zero) * s.time_base for t in series]
        for s, series, zero in zip(pair, (old, new), (old_zero, new_zero), strict=True)
    ]
    worst, at = worst_of(times[0], times[1])
    if not worst and len(old) == len(new):
        return Check(name, "ok", f"equal, {len(old)}")
    missing = f"{abs(len(old) - len(new))} more or fewer, " if len(old) != len(new) else ""
    status: Status = "ok" if worst <= pair.tolerance and not missing else "differs"
    return Check(name, status, f"{missing}off by up to {as_seconds(worst)}, at frame {at}; ticks of {pair.result.time_base} s")


def worst_of(old: Sequence[Fraction], new: Sequence[Fraction]) -> tuple[Fraction, int]:
    """The greatest difference in seconds, and where it first is."""
    differences = [abs(a - b) for a, b in zip(old, new, strict=False)]
    worst = max(differences, default=Fraction(0))
    return worst, differences.index(worst) if differences else 0


def time_check(name: str, pair: Pair, old: Fraction, new: Fraction) -> Check:
    tolerance = max(pair.tolerance, pair.result.time_base)
    detail = as_seconds(old) if old == new else f"{as_seconds(old)} -> {as_seconds(new)}"
    return Check(name, "ok" if abs(old - new) <= tolerance else "differs", detail)


def equal_check(name: str, old: object, new: object) -> Check:
    return Check(name, "ok" if old == new else "differs", f"{old}" if old == new else f"{old} -> {new}")


def kept_check(name: str, old: object, new: object) -> Check:
    if old is None and new is None:
        return Check(name, "n/a", "not stated")
    if old == new:
        return Check(name, "ok", as_text(old))
    return Check(name, "lost" if new is None else "differs", f"{as_text(old)} -> {as_text(new)}")


def as_text(value: object) -> str:
    return "not stated" if value is None else ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def as_seconds(seconds: Fraction) -> str:
    return f"{float(seconds):.6f}".rstrip("0").rstrip(".") + " s"
