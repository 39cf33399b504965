"""The words between the scheduler and its caller: the limits it keeps, and the commands it gives."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.units import Unit

OVERLAPPING = 2  # units in flight per worker, at least: while one is read or stored, another is computed
MOST_IN_FLIGHT = 16  # as many does a kill undo


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    depth: int = OVERLAPPING
    stall_s: float = 900.0  # silence after which a worker is taken to hang
    max_attempts: int = 3  # failures of one unit before it is given up
    backoff_s: float = 1.0  # wait before the second attempt; doubles with each further one
    max_backoff_s: float = 60.0
    max_raises: int = 2  # failures in a row after which a worker process is replaced: a CUDA context may be broken for good
    max_start_deaths: int = 3  # processes of one slot that died in a row before they could work
    max_slot_deaths: int = 8  # processes of one slot that died in a row at work without finishing a unit
    max_node_losses: int = 5  # nodes that one unit may lose before it is suspected

    def __post_init__(self) -> None:
        if min(self.depth, self.max_attempts, self.max_raises, self.max_start_deaths) < 1 or self.stall_s <= 0:
            raise ValueError(f"counts and times must be positive, got {self}")
        if self.max_slot_deaths <= self.max_attempts:
            raise ValueError(f"max_slot_deaths must exceed max_attempts, or a bad unit closes a good slot, got {self}")


@dataclass(frozen=True, slots=True)
class StartWorker:
    worker: int


@dataclass(frozen=True, slots=True)
class KillWorker:
    worker: int
    reason: str  # empty where the worker is only no longer needed


@dataclass(frozen=True, slots=True)
class Assign:
    worker: int
    unit: Unit


@dataclass(frozen=True, slots=True)
class Quarantine:
    unit: Unit
    evidence: list[str]
    innocent: bool = False  # its surroundings failed: another run may do it


@dataclass(frozen=True, slots=True)
class Split:
    unit: Unit
    parts: list[Unit]


Command = StartWorker | KillWorker | Assign | Quarantine | Split
