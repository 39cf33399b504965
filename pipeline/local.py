"""Runs units in this process, as one worker does: for debugging and for tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable

from pipeline.commands import OVERLAPPING
from pipeline.driver import Event, Opened, Outcome, Placed, Reported, RunOptions, Signal, run_on_pool
from pipeline.ledger import Ledger
from pipeline.stages import ahead
from pipeline.units import Unit, Workload
from pipeline.worker import Report, Worker

UNHEARD = 1 << 20  # reports


def run_units(
    units: Iterable[Unit], workload: Workload, ledger: Ledger, options: RunOptions, on_event: Callable[[Event], None]
) -> Outcome:
    """As ``cluster.run_units``, but a unit that hangs hangs, and one that kills its process kills this one."""
    pool = _LocalPool(workload, ledger)
    try:
        return run_on_pool(pool, units, workload, ledger, options, on_event)
    finally:
        pool.close()


class _LocalPool:
    """One worker at a time. Its oldest unit is heard of, while the next one works ahead in a thread."""

    def __init__(self, workload: Workload, ledger: Ledger) -> None:
        self._workload = workload
        self._ledger = ledger
        self._worker: Worker | None = None
        self._number = -1
        self._signals: list[Signal] = []
        self._running: dict[str, Generator[Report, None, None]] = {}

    def max_workers(self) -> int:
        return 1

    def depth(self) -> int:
        return OVERLAPPING

    def start(self, worker: int) -> None:
        self._number, self._worker = worker, Worker(self._workload, self._ledger, num_threads=None)
        self._signals = [Placed(worker), Opened(worker, self._worker.open())]

    def kill(self, worker: int) -> None:
        if worker == self._number:
            self.close()
            self._worker = None
            self._signals.clear()

    def assign(self, worker: int, unit: Unit) -> None:
        assert self._worker is not None
        self._running[unit.id] = reports = ahead(self._worker.run(unit), UNHEARD)
        self._signals.append(Reported(self._number, unit.id, next(reports)))  # which has it begin

    def poll(self, timeout_s: float) -> list[Signal]:
        if self._signals:
            signals, self._signals = self._signals, []
            return signals
        for unit_id, reports in self._running.items():
            for report in reports:
                return [Reported(self._number, unit_id, report)]
            del self._running[unit_id]
            break
        else:
            time.sleep(timeout_s)  # everything waits for its next attempt
        return []

    def close(self) -> None:
        for reports in self._running.values():
            reports.close()
        self._running.clear()
