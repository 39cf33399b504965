"""Which worker does which unit, and who is to blame: the policy as a state machine under a virtual clock.

Facts go in through the methods named after them; ``decide`` hands out what to do next. No clock, no Ray, no storage.

- A worker holds up to ``depth`` units. Only its oldest unit must show progress: the younger ones may wait for it.
- A worker that dies with one unit in hand convicts it; with several, all become suspects, which run alone until cleared.
- A unit that failed ``max_attempts`` times, or once for good, is split where it can be, and else quarantined. One that killed
  its worker is split at once, and its parts run alone: each further attempt at all of it would cost a process. One whose
  surroundings failed is never split: its parts would fail as well.
- A lost node is nobody's fault. A unit that keeps losing nodes becomes a suspect all the same.
- A worker slot whose processes keep dying is closed, so that a broken machine does not convict innocent units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from pipeline.backlog import Backlog
from pipeline.commands import Assign, Command, KillWorker, Policy, Quarantine, Split, StartWorker
from pipeline.pool import Case, Job, Phase, Slot, Worker
from pipeline.units import Cause, Unit


class Scheduler:
    """Feed units to workers until each is committed, quarantined or split.

    ``units`` is read lazily; those of which ``is_done`` says so are passed over. ``split`` returns smaller units, or [] where
    there are none. ``max_workers`` may be changed at any time. Facts about a worker or unit that is no longer in hand are
    ignored: they are late.
    """

    def __init__(
        self,
        units: Iterable[Unit],
        policy: Policy,
        max_workers: int,
        split: Callable[[Unit], list[Unit]] = lambda unit: [],
        is_done: Callable[[Unit], bool] = lambda unit: False,
    ) -> None:
        self.policy = policy
        self.max_workers = max_workers
        self.draining = False
        self._split = split
        self._is_done = is_done
        self._backlog = Backlog(units, is_done)
        self._cases: dict[str, Case] = {}
        self._workers: dict[int, Worker] = {}
        self._slots: list[Slot] = []
        self._num_started = 0
        self._verdicts: list[Command] = []
        self._last_death = ""

    # What happened ------------------------------------------------------------------------------------------------------

    def worker_placed(self, worker: int, now: float) -> None:
        """The worker has a process; from here on it must show progress."""
        if (state := self._workers.get(worker)) and state.phase is Phase.PENDING:
            state.phase, state.heard = Phase.OPENING, now

    def worker_ready(self, worker: int, now: float) -> None:
        if state := self._workers.get(worker):
            state.phase, state.heard = Phase.READY, now
            state.slot.start_deaths = 0

    def heartbeat(self, worker: int, unit_id: str, now: float) -> None:
        if job := self._job(worker, unit_id):
            job.heard = now

    def unit_done(self, worker: int, unit_id: str, now: float) -> None:
        if self._take(worker, unit_id, now):
            state = self._workers[worker]
            state.num_raises = 0
            state.slot.deaths.clear()
            self._cases.pop(unit_id, None)

    def unit_raised(self, worker: int, unit_id: str, reason: str, now: float, cause: Cause = Cause.UNKNOWN) -> None:
        """The unit failed and its worker lives."""
        if job := self._take(worker, unit_id, now):
            state = self._workers[worker]
            state.num_raises += 1
            self._charge(job.unit, reason, state.slot, now, cause)
            if state.num_raises >= self.policy.max_raises and cause is Cause.UNKNOWN:
                for other in state.jobs.values():
                    self._put_back(other.unit)
                self._remove(worker)
                self._verdicts.append(KillWorker(worker, f"{state.num_raises} units in a row failed in it"))

    def worker_died(self, worker: int, reason: str, now: float) -> None:
        """The process is gone, or must go: the caller has killed it."""
        if state := self._remove(worker):
            self._last_death = reason
            self._bury(state, reason, now)

    def node_lost(self, worker: int, reason: str, now: float) -> None:
        """The machine is gone or out of reach; the caller has killed the process as far as it could."""
        if state := self._remove(worker):
            for job in state.jobs.values():
                case = self._case(job.unit)
                case.num_node_losses += 1
                case.evidence.append(reason)
                if case.num_node_losses <= self.policy.max_node_losses:
                    self._put_back(job.unit)
                elif case.suspect:
                    self._charge(job.unit, reason, state.slot, now, Cause.UNKNOWN)
                else:
                    self._suspect(job.unit)

    def drain(self) -> None:
        """Give out no further units; what is in flight finishes."""
        self.draining = True

    # What to do ---------------------------------------------------------------------------------------------------------

    def decide(self, now: float) -> list[Command]:
        """What to do next, in this order. Also the clock tick: call it at least every few seconds."""
        self._find_stalls(now)
        # Enough to size the pool and to share out the last ones, and no more.
        self._backlog.look_ahead(self.max_workers * (self.policy.depth + 1))
        for unit in self._backlog.due(now):
            self._put_back(unit)
        commands, self._verdicts = self._verdicts, []
        return commands + self._resize(now) + self._feed(now)

    @property
    def num_in_flight(self) -> int:
        return sum(len(worker.jobs) for worker in self._workers.values())

    @property
    def finished(self) -> bool:
        """Nothing is in flight and nothing is left to do; commands may still be waiting in ``decide``."""
        return not self._verdicts and self.num_in_flight == 0 and (self.draining or len(self._backlog) == 0)

    @property
    def interrupted(self) -> bool:
        """The drain, or the end of the caller's patience, left units undone."""
        return self.draining and self.num_in_flight + len(self._backlog) > 0

    @property
    def failure(self) -> str | None:
        """Why no unit can run any more, or None: every slot is closed."""
        if self.finished or self.num_in_flight or not self._slots or len(self._open_slots()) > 0:
            return None
        return f"no worker can be kept alive; the last one died of: {self._last_death}"

    # Inside -------------------------------------------------------------------------------------------------------------

    def _job(self, worker: int, unit_id: str) -> Job | None:
        state = self._workers.get(worker)
        return state.jobs.get(unit_id) if state else None

    def _take(self, worker: int, unit_id: str, now: float) -> Job | None:
        """Remove a unit from its worker; the next oldest has from now on to show progress."""
        state = self._workers.get(worker)
        job = state.jobs.pop(unit_id, None) if state else None
        if state and job:
            state.alone = False
            for oldest in list(state.jobs.values())[:1]:
                oldest.heard = now
        return job

    def _remove(self, worker: int) -> Worker | None:
        state = self._workers.pop(worker, None)
        if state:
            state.slot.worker = None
        return state

    def _case(self, unit: Unit) -> Case:
        return self._cases.setdefault(unit.id, Case())

    def _put_back(self, unit: Unit) -> None:
        case = self._cases.get(unit.id)
        self._backlog.put_back(unit, suspect=case is not None and case.suspect)

    def _suspect(self, unit: Unit) -> None:
        self._case(unit).suspect = True
        self._put_back(unit)

    def _bury(self, state: Worker, reason: str, now: float) -> None:
        """Find who is to blame for a death: the slot before it could work, a single unit for certain, else suspects."""
        slot, units = state.slot, [job.unit for job in state.jobs.values()]
        if state.phase is not Phase.READY:
            slot.start_deaths += 1
            slot.opens_at = now + self._delay_s(slot.start_deaths)
            slot.closed = slot.start_deaths >= self.policy.max_start_deaths
            return
        slot.deaths.append(frozenset(unit.id for unit in units))
        if len(units) == 1:
            self._charge(units[0], reason, slot, now, Cause.UNKNOWN, killer=True)
        else:
            for unit in units:
                self._case(unit).evidence.append(f"{reason} (not alone)")
                self._suspect(unit)
        # The last slot stays: with nowhere else to try, the deaths convict the units.
        if len(slot.deaths) >= self.policy.max_slot_deaths and len(self._open_slots()) > 1:
            slot.closed = True

    def _charge(self, unit: Unit, reason: str, slot: Slot, now: float, cause: Cause, killer: bool = False) -> None:
        case = self._case(unit)
        case.evidence.append(reason)
        case.num_failures += 1
        case.slots.append(slot)
        case.suspect = case.suspect or killer
        innocent = cause is Cause.SURROUNDINGS
        is_over = cause is Cause.INPUT or case.num_failures >= self.policy.max_attempts
        parts = self._split(unit) if (is_over or killer) and not innocent else []
        if not is_over and not parts:
            self._backlog.wait(unit, now + self._delay_s(case.num_failures))
            return
        del self._cases[unit.id]
        for other in self._slots:  # those deaths are explained
            other.deaths = [ids for ids in other.deaths if unit.id not in ids]
        for part in parts:
            if not self._is_done(part):
                self._case(part).suspect = killer
                self._put_back(part)
        self._verdicts.append(Split(unit, parts) if parts else Quarantine(unit, case.evidence, innocent))

    def _delay_s(self, num_failures: int) -> float:
        return min(self.policy.backoff_s * 2.0 ** (num_failures - 1), self.policy.max_backoff_s)

    def _find_stalls(self, now: float) -> None:
        for worker, state in list(self._workers.items()):
            if silent := state.silent_in(now - self.policy.stall_s):
                reason = f"no progress for {self.policy.stall_s:g} s in {silent}"
                self._verdicts.append(KillWorker(worker, reason))
                self.worker_died(worker, reason, now)

    def _open_slots(self) -> list[Slot]:
        return [slot for slot in self._slots if not slot.closed]

    def _resize(self, now: float) -> list[Command]:
        """As many workers as there are units for, up to ``max_workers``; those without a unit go, the youngest first."""
        pending = 0 if self.draining else len(self._backlog)
        wanted = min(self.max_workers, pending + self.num_in_flight)
        commands: list[Command] = []
        idle = [worker for worker, state in self._workers.items() if not state.jobs]
        idle.sort(key=lambda worker: (self._workers[worker].phase is Phase.PENDING, worker))
        while len(self._workers) > wanted and idle:
            worker = idle.pop()
            self._remove(worker)
            commands.append(KillWorker(worker, ""))
        while len(self._slots) < self.max_workers:
            self._slots.append(Slot())
        free = [slot for slot in self._open_slots() if slot.worker is None and slot.opens_at <= now]
        for slot in free[: max(0, wanted - len(self._workers))]:
            slot.worker = self._num_started
            self._workers[slot.worker] = Worker(slot, now)
            self._num_started += 1
            commands.append(StartWorker(slot.worker))
        return commands

    def _feed(self, now: float) -> list[Command]:
        if self.draining:
            return []
        commands: list[Command] = []
        ready = [worker for worker, state in self._workers.items() if state.phase is Phase.READY]
        ready.sort(key=lambda worker: len(self._workers[worker].jobs))
        for worker in ready:
            if not self._workers[worker].jobs and (unit := self._backlog.take_suspect(partial(self._may_take, worker))):
                self._workers[worker].alone = True
                commands.append(self._assign(worker, unit, now))
        reserved = self._reserve(ready)
        others = [worker for worker in ready if worker not in reserved and not self._workers[worker].alone]
        for level in range(self.policy.depth):
            for worker in others:
                # A worker that is about to be ready would miss as many units as this one has.
                if self._backlog.num_ready_to_run <= self._num_opening * level:
                    return commands
                if len(self._workers[worker].jobs) == level and (unit := self._backlog.take(partial(self._may_take, worker))):
                    commands.append(self._assign(worker, unit, now))
        return commands

    def _reserve(self, ready: list[int]) -> set[int]:
        """Workers to keep from new units until they are empty, or suspects would wait for ever; at most half of them."""
        reserved: set[int] = set()
        for unit in self._backlog.suspects:
            free = [w for w in ready if w not in reserved and not self._workers[w].alone and self._may_take(w, unit)]
            if not free or len(reserved) >= (len(ready) + 1) // 2:
                break
            reserved.add(free[0])
        return reserved

    @property
    def _num_opening(self) -> int:
        return sum(state.phase is Phase.OPENING for state in self._workers.values())

    def _assign(self, worker: int, unit: Unit, now: float) -> Assign:
        self._workers[worker].jobs[unit.id] = Job(unit, now)
        return Assign(worker, unit)

    def _may_take(self, worker: int, unit: Unit) -> bool:
        """Whether the unit has not failed in this worker's slot, or there is no living worker where it has not."""
        case = self._cases.get(unit.id)
        if case is None or not case.slots:
            return True
        fresh = [
            w for w, s in self._workers.items() if s.phase is not Phase.PENDING and all(s.slot is not x for x in case.slots)
        ]
        return worker in fresh or not fresh
