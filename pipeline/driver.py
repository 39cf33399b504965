"""The loop that runs units: asks the scheduler what to do, has a pool of workers do it, tells the ledger and the caller."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any, Literal, Protocol

from pipeline.commands import Assign, Command, KillWorker, Policy, Quarantine, Split, StartWorker
from pipeline.errors import ConfigError, MediaError, OutputError
from pipeline.ledger import Ledger
from pipeline.scheduler import Scheduler
from pipeline.units import Cause, Unit, Workload
from pipeline.worker import Committed, Failed, Progress, Report

POLL_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    num_workers: int | None = None  # None: one per accelerator, or as many as the CPU cores feed
    device: Literal["auto", "cpu", "cuda"] = "auto"
    address: str | None = None  # of a Ray cluster: "auto" or host:port; None starts Ray on this machine
    unit_cpus: int | None = None  # that a unit keeps busy beside a GPU; None: two units in flight are enough
    unit_bytes: int = 0  # of memory that a unit takes
    stall_s: float = 900.0  # silence after which a worker is killed
    max_attempts: int = 3  # of one unit
    backoff_s: float = 1.0  # before its second attempt; doubles
    cpus_per_worker: int = 4  # where there is no accelerator


EventKind = Literal[
    "reused",  # unit_id was committed by an earlier run
    "worker_started",
    "worker_died",
    "assigned",
    "progress",
    "committed",
    "failed",  # one attempt; it may be tried again
    "split",
    "quarantined",
    "draining",
]


@dataclass(frozen=True, slots=True)
class Event:
    kind: EventKind
    unit_id: str = ""
    items_done: int = 0  # of the unit, in this attempt
    worker: int = -1
    message: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the units ended, those of an earlier run among them. A split unit is there as its parts."""

    committed: dict[str, dict[str, Any]]
    quarantined: dict[str, list[str]]  # one line per attempt
    interrupted: bool
    innocent: frozenset[str] = frozenset()  # of the quarantined: storage or a full disk is at fault


@dataclass(frozen=True, slots=True)
class Placed:
    worker: int


@dataclass(frozen=True, slots=True)
class Opened:
    worker: int
    failure: Failed | None


@dataclass(frozen=True, slots=True)
class Reported:
    worker: int
    unit_id: str
    report: Report


@dataclass(frozen=True, slots=True)
class Died:
    worker: int
    reason: str
    node_lost: bool = False


Signal = Placed | Opened | Reported | Died


class Pool(Protocol):
    """Worker processes, by number. ``kill`` is final and silent: nothing is heard of that worker again."""

    def max_workers(self) -> int: ...
    def depth(self) -> int:
        """Units in flight per worker."""
        ...

    def start(self, worker: int) -> None: ...
    def kill(self, worker: int) -> None: ...
    def assign(self, worker: int, unit: Unit) -> None: ...
    def poll(self, timeout_s: float) -> list[Signal]:
        """What happened, waiting up to ``timeout_s`` for something to. A worker that Died is already killed."""
        ...


def run_on_pool(
    pool: Pool,
    units: Iterable[Unit],
    workload: Workload,
    ledger: Ledger,
    options: RunOptions,
    on_event: Callable[[Event], None],
) -> Outcome:
    """Run the units that are neither committed nor quarantined, until each is one of the two or the user interrupts.

    Unit ids are unique. The first Ctrl-C finishes what is in flight, the second, or SIGTERM, does not; ``clear_quarantine``
    before the run has given-up units tried again. ``on_event`` is called in this thread.
    Raises ConfigError as soon as a unit does, or the workload where it opens; OutputError where no worker can be kept alive.
    """
    run = _Run(pool, units, workload, ledger, options, on_event)
    with _interrupts() as interrupts:
        while not run.scheduler.finished and interrupts.count < 2:
            if interrupts.count and not run.scheduler.draining:
                run.drain()
            run.step()
    return run.outcome()


class _Run:
    def __init__(
        self,
        pool: Pool,
        units: Iterable[Unit],
        workload: Workload,
        ledger: Ledger,
        options: RunOptions,
        on_event: Callable[[Event], None],
    ) -> None:
        self._pool = pool
        self._ledger = ledger
        self._on_event = on_event
        self._before = ledger.committed()
        self._given_up = {unit_id: lines for unit_id, lines in ledger.quarantined().items() if unit_id not in self._before}
        self._committed: dict[str, dict[str, Any]] = {}
        self._quarantined: dict[str, list[str]] = {}
        self._innocent: set[str] = set()
        self._num_items: dict[str, int] = {}  # of the units that were assigned
        policy = Policy(
            stall_s=options.stall_s,
            max_attempts=options.max_attempts,
            backoff_s=options.backoff_s,
            max_slot_deaths=options.max_attempts + 5,
        )
        self.scheduler = Scheduler(units, policy, pool.max_workers(), workload.split, self._is_done)

    def step(self) -> None:
        self.scheduler.max_workers = self._pool.max_workers()
        self.scheduler.policy = replace(self.scheduler.policy, depth=self._pool.depth())
        for command in self.scheduler.decide(time.monotonic()):
            self._obey(command)
        if self.scheduler.failure:
            raise OutputError(f"{self.scheduler.failure}; run the same command again to resume")
        if not self.scheduler.finished:
            for happened in self._pool.poll(POLL_S):
                self._tell(happened, time.monotonic())

    def drain(self) -> None:
        self.scheduler.drain()
        count = self.scheduler.num_in_flight
        self._on_event(Event("draining", message=f"finishing {count} in flight; interrupt again to stop now"))

    def outcome(self) -> Outcome:
        stopped = self.scheduler.interrupted or not self.scheduler.finished
        return Outcome(self._committed, self._quarantined, stopped, frozenset(self._innocent))

    def _is_done(self, unit: Unit) -> bool:
        if (record := self._before.pop(unit.id, None)) is not None:
            self._committed[unit.id] = record
            self._on_event(Event("reused", unit.id, unit.num_items))
        elif (evidence := self._given_up.pop(unit.id, None)) is not None:
            self._quarantined[unit.id] = evidence
            self._on_event(Event("quarantined", unit.id, message=evidence[-1]))
        return unit.id in self._committed or unit.id in self._quarantined

    def _obey(self, command: Command) -> None:
        match command:
            case StartWorker(worker):
                self._pool.start(worker)
            case KillWorker(worker, reason):
                self._pool.kill(worker)
                if reason:
                    self._on_event(Event("worker_died", worker=worker, message=reason))
            case Assign(worker, unit):
                self._pool.assign(worker, unit)
                self._num_items[unit.id] = unit.num_items
                self._on_event(Event("assigned", unit.id, worker=worker))
            case Split(unit, parts):
                self._on_event(Event("split", unit.id, message=f"into {len(parts)} parts"))
            case Quarantine(unit, evidence, innocent):
                self._give_up(unit, evidence, innocent)

    def _give_up(self, unit: Unit, evidence: list[str], innocent: bool) -> None:
        # An attempt that we took for dead may have finished since.
        if (record := self._ledger.record(unit.id)) is not None:
            self._commit(unit.id, record, -1)
            return
        if innocent:
            self._innocent.add(unit.id)
        else:
            self._ledger.quarantine(unit.id, evidence)
        self._quarantined[unit.id] = evidence
        self._on_event(Event("quarantined", unit.id, message=evidence[-1]))

    def _commit(self, unit_id: str, record: dict[str, Any], worker: int) -> None:
        if unit_id not in self._committed:
            self._committed[unit_id] = record
            self._on_event(Event("committed", unit_id, self._num_items[unit_id], worker))

    def _tell(self, happened: Signal, now: float) -> None:
        match happened:
            case Placed(worker):
                self.scheduler.worker_placed(worker, now)
            case Opened(worker, None):
                self.scheduler.worker_ready(worker, now)
                self._on_event(Event("worker_started", worker=worker))
            case Opened(worker, Failed(reason, cause)):
                if cause in (Cause.SETTINGS, Cause.INPUT):
                    raise (ConfigError if cause is Cause.SETTINGS else MediaError)(reason)
                self._pool.kill(worker)
                self.scheduler.worker_died(worker, reason, now)
                self._on_event(Event("worker_died", worker=worker, message=reason))
            case Died(worker, reason, node_lost):
                (self.scheduler.node_lost if node_lost else self.scheduler.worker_died)(worker, reason, now)
                self._on_event(Event("worker_died", worker=worker, message=reason))
            case Reported(worker, unit_id, report):
                self._tell_report(worker, unit_id, report, now)

    def _tell_report(self, worker: int, unit_id: str, report: Report, now: float) -> None:
        match report:
            case Progress(items_done):
                self.scheduler.heartbeat(worker, unit_id, now)
                self._on_event(Event("progress", unit_id, items_done, worker))
            case Committed(record):
                self.scheduler.unit_done(worker, unit_id, now)
                self._commit(unit_id, record, worker)
            case Failed(reason, cause):
                if cause is Cause.SETTINGS:
                    raise ConfigError(reason)
                self._on_event(Event("failed", unit_id, worker=worker, message=reason))
                self.scheduler.unit_raised(worker, unit_id, reason, now, cause)


class _Interrupts:
    """How often the user pressed Ctrl-C; a SIGTERM, of a batch system or a shutdown, counts for two."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        self.count += 2 if signum == signal.SIGTERM else 1


@contextmanager
def _interrupts() -> Iterator[_Interrupts]:
    """Count signals inside the block, instead of raising KeyboardInterrupt. Outside the main thread nothing is counted."""
    interrupts = _Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    before = {number: signal.signal(number, interrupts) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
