"""What the scheduler knows: its workers and what they have in hand, their places in the pool, and the units that failed."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from pipeline.units import Unit


class Phase(Enum):
    PENDING = "asked for; may wait for a machine as long as it takes"
    OPENING = "has a process, which loads the model"
    READY = "takes units"


@dataclass(slots=True)
class Job:
    unit: Unit
    heard: float  # last sign of life, or when the unit became the oldest of its worker


@dataclass(slots=True)
class Worker:
    slot: Slot
    heard: float
    phase: Phase = Phase.PENDING
    jobs: dict[str, Job] = field(default_factory=dict)  # oldest first
    alone: bool = False  # its only unit is a suspect
    num_raises: int = 0  # in a row

    def silent_in(self, since: float) -> str:
        """In what it has shown no progress for as long as that; "" where it has, or nothing is to be seen of it."""
        oldest = next(iter(self.jobs.values()), None)
        if self.phase is Phase.PENDING or (self.phase is Phase.READY and oldest is None):
            return ""
        if (oldest.heard if oldest else self.heard) >= since:
            return ""
        return f"unit {oldest.unit.id}" if oldest else "loading the model"


@dataclass(slots=True)
class Slot:
    """A worker's place in the pool, through all its processes."""

    start_deaths: int = 0
    deaths: list[frozenset[str]] = field(default_factory=list)  # the units in hand at each, since the last success
    opens_at: float = 0.0
    closed: bool = False
    worker: int | None = None


@dataclass(slots=True)
class Case:
    """A unit that has failed, died or lost its node."""

    evidence: list[str] = field(default_factory=list)
    num_failures: int = 0
    num_node_losses: int = 0
    suspect: bool = False
    slots: list[Slot] = field(default_factory=list)  # where it failed; it is tried elsewhere if there is an elsewhere
