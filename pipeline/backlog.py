"""The units that no worker has: in which order they wait, and until when."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from pipeline.units import Unit


class Backlog:
    """Fresh units, read lazily; those taken back from a worker; suspects, which are to run alone; those that wait for a time.

    Fresh units of which ``is_done`` says so are passed over.
    """

    def __init__(self, units: Iterable[Unit], is_done: Callable[[Unit], bool]) -> None:
        self._units: Iterator[Unit] = iter(units)
        self._is_done = is_done
        self._exhausted = False
        self._fresh: deque[Unit] = deque()
        self._again: deque[Unit] = deque()  # taken from a worker through no fault of theirs
        self._suspects: deque[Unit] = deque()
        self._waiting: list[tuple[float, int, Unit]] = []  # heap by the time of the next attempt
        self._num_waits = 0

    def __len__(self) -> int:
        """How many there are, as far as is known: what is not yet read counts as one."""
        return len(self._fresh) + len(self._again) + len(self._suspects) + len(self._waiting) + (not self._exhausted)

    @property
    def num_ready_to_run(self) -> int:
        """Of those that need not run alone."""
        return len(self._fresh) + len(self._again)

    @property
    def suspects(self) -> Iterable[Unit]:
        return self._suspects

    def put_back(self, unit: Unit, suspect: bool) -> None:
        (self._suspects if suspect else self._again).append(unit)

    def wait(self, unit: Unit, until: float) -> None:
        self._num_waits += 1
        heapq.heappush(self._waiting, (until, self._num_waits, unit))

    def due(self, now: float) -> Iterator[Unit]:
        """Take those whose time has come; the caller puts them back."""
        while self._waiting and self._waiting[0][0] <= now:
            yield heapq.heappop(self._waiting)[2]

    def look_ahead(self, num_fresh: int) -> None:
        """Read until there are that many fresh ones, or no more."""
        while not self._exhausted and len(self._fresh) < num_fresh:
            unit = next(self._units, None)
            if unit is None:
                self._exhausted = True
            elif not self._is_done(unit):
                self._fresh.append(unit)

    def take_suspect(self, may_take: Callable[[Unit], bool]) -> Unit | None:
        return _first(self._suspects, may_take)

    def take(self, may_take: Callable[[Unit], bool]) -> Unit | None:
        """A unit that was in hand before, else a fresh one."""
        return _first(self._again, may_take) or (self._fresh.popleft() if self._fresh else None)


def _first(queue: deque[Unit], may_take: Callable[[Unit], bool]) -> Unit | None:
    for index, unit in enumerate(queue):
        if may_take(unit):
            del queue[index]
            return unit
    return None
