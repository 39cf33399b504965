"""A world in virtual time for the scheduler: workers and units that fail as they are told."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.commands import Assign, KillWorker, Policy, Quarantine, Split, StartWorker
from pipeline.scheduler import Scheduler
from pipeline.units import Cause, Unit

CAUSES = {"raise": Cause.UNKNOWN, "refuse": Cause.INPUT, "starve": Cause.SURROUNDINGS}
FAULTS = (*CAUSES, "die", "hang", "raise once", "die once")


def make_unit(number: int, num_items: int = 1) -> Unit:
    return Unit(f"u{number}", num_items, {})


@dataclass
class World:
    """Workers and units that behave as told, and an event queue in virtual time."""

    rng: random.Random
    num_units: int
    num_workers: int
    policy: Policy
    faults: dict[str, str]
    num_crashes: int = 0  # of processes, for no reason; with a fault "once" fewer than convict an innocent unit
    num_losses: int = 0  # of nodes
    now: float = 0.0
    committed: set[str] = field(default_factory=set)
    quarantined: dict[str, list[str]] = field(default_factory=dict)
    split: set[str] = field(default_factory=set)
    living: dict[int, set[str]] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    ticking: bool = False

    def __post_init__(self) -> None:
        self.order = itertools.count()
        self.queue: list[tuple[float, int, tuple]] = []
        self.scheduler = Scheduler(self.units(), self.policy, self.num_workers, self.bisect, lambda u: u.id in self.committed)

    def units(self) -> Iterator[Unit]:
        for number in range(self.num_units):
            yield make_unit(number, 4 if number % 5 == 0 else 1)

    def bisect(self, unit: Unit) -> list[Unit]:
        if unit.num_items == 1:
            return []
        parts = [Unit(f"{unit.id}.{i}", unit.num_items // 2, {}) for i in range(2)]
        if unit.id in self.faults:
            self.faults[self.rng.choice(parts).id] = self.faults[unit.id]
        return parts

    def at(self, delay: float, *event) -> None:
        heapq.heappush(self.queue, (self.now + delay, next(self.order), event))

    def run(self) -> World:
        for _ in range(self.num_crashes):
            self.at(self.rng.uniform(0, 20), "crash")
        for _ in range(self.num_losses):
            self.at(self.rng.uniform(0, 20), "lose")
        for step in itertools.count():
            assert step < 5000, "does not terminate"
            for command in self.scheduler.decide(self.now):
                self.obey(command)
            if self.scheduler.finished:
                return self
            assert self.scheduler.failure is None
            if not self.ticking:
                self.at(4.0, "tick")
                self.ticking = True
            self.now, _, event = heapq.heappop(self.queue)
            getattr(self, "on_" + event[0])(*event[1:])
        return self

    def obey(self, command) -> None:
        match command:
            case StartWorker(worker):
                self.living[worker] = set()
                assert len(self.living) <= self.num_workers
                self.at(self.rng.uniform(0, 1), "placed", worker)
                self.at(self.rng.uniform(1, 2), "ready", worker)
            case KillWorker(worker, reason):
                if not reason:
                    assert not self.living[worker], "a worker that is no longer needed has no units"
                self.living.pop(worker, None)  # its later events still arrive, as from a machine that was cut off
            case Assign(worker, unit):
                assert worker in self.living
                held = self.living[worker]
                held.add(unit.id)
                assert len(held) <= self.policy.depth
                assert unit.id not in self.committed
                assert sum(unit.id in other for other in self.living.values()) == 1, "one attempt at a time"
                self.attempts[unit.id] = self.attempts.get(unit.id, 0) + 1
                self.begin(worker, unit)
            case Quarantine(unit, evidence, innocent):
                assert not innocent or self.faults[unit.id] == "starve"
                assert unit.id not in self.committed
                assert unit.id not in self.quarantined
                assert evidence
                self.quarantined[unit.id] = evidence
            case Split(unit, parts):
                assert len(parts) == 2
                self.split.add(unit.id)

    def begin(self, worker: int, unit: Unit) -> None:
        fault = self.faults.get(unit.id, "")
        if fault.endswith("once"):
            fault = fault.split()[0] if self.attempts[unit.id] == 1 else ""
        delay = self.rng.uniform(0.1, 3)
        self.at(delay / 2, "beat", worker, unit.id)
        if fault == "die":
            self.at(delay, "die", worker)
        elif fault in CAUSES:
            self.at(delay, "raise", worker, unit.id, CAUSES[fault])
        elif fault == "":
            self.at(delay, "done", worker, unit.id)

    def on_tick(self) -> None:
        self.ticking = False

    def on_placed(self, worker: int) -> None:
        self.scheduler.worker_placed(worker, self.now)

    def on_ready(self, worker: int) -> None:
        self.scheduler.worker_ready(worker, self.now)

    def on_beat(self, worker: int, unit_id: str) -> None:
        self.scheduler.heartbeat(worker, unit_id, self.now)

    def on_done(self, worker: int, unit_id: str) -> None:
        if unit_id in self.living.get(worker, ()):
            self.living[worker].discard(unit_id)
            self.committed.add(unit_id)
        self.scheduler.unit_done(worker, unit_id, self.now)  # late ones too: the scheduler must ignore them

    def on_raise(self, worker: int, unit_id: str, cause: Cause) -> None:
        if worker in self.living:
            self.living[worker].discard(unit_id)
        self.scheduler.unit_raised(worker, unit_id, "raised", self.now, cause)

    def on_die(self, worker: int) -> None:
        self.living.pop(worker, None)
        self.scheduler.worker_died(worker, "died", self.now)

    def on_crash(self) -> None:
        if self.living:
            self.on_die(self.rng.choice(sorted(self.living)))

    def on_lose(self) -> None:
        if self.living:
            worker = self.rng.choice(sorted(self.living))
            self.living.pop(worker)
            self.scheduler.node_lost(worker, "node lost", self.now)


def random_world(seed: int) -> World:
    rng = random.Random(seed)
    num_units = rng.randint(1, 12)
    faults = {f"u{n}": rng.choice(FAULTS) for n in range(num_units) if rng.random() < 0.25}
    policy = Policy(depth=rng.randint(1, 3), stall_s=20.0, backoff_s=rng.choice([0.0, 0.5, 5.0]))
    return World(rng, num_units, rng.randint(1, 4), policy, faults, rng.randint(0, 1), rng.randint(0, 4))
