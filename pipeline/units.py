"""The unit of work, and the one seam between the engine and what it computes.

The scheduler knows units; what a unit is (a range of a video, a shard of images) only its workload knows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Unit:
    """The smallest piece of work that commits: a few hundred bytes, never pixels.

    ``id`` is a digest of everything that changes the unit's output; ``num_items`` counts frames or images; ``spec`` is plain
    JSON data that the workload understands.
    """

    id: str
    num_items: int
    spec: dict[str, Any] = field(hash=False)


class Cause(Enum):
    """Whose fault it is that a unit raised."""

    INPUT = "the unit's: another attempt would fail the same way, a part of it may not"
    SETTINGS = "of a setting: every unit would fail the same way"
    SURROUNDINGS = "of storage or a full disk: each part of the unit would fail as well, and later it may succeed"
    UNKNOWN = "it may be chance, the worker's process, or something in the unit"


class Runner(Protocol):
    """A workload set up in one worker process: the model is loaded, units can run, two at a time from two threads."""

    def run(self, unit: Unit, attempt: str) -> Generator[int, None, dict[str, Any]]:
        """Compute one unit and store its output under a key that contains ``attempt``.

        Yields, as heartbeats, how many items are done so far; returns the commit record (JSON data that names the stored
        output). Raises an exception where the unit cannot be done; it is tried again, then quarantined.
        """
        ...


class Workload(Protocol):
    """What runs the units of one job. Picklable; it is sent to each node once."""

    def open(self) -> Runner:
        """Load what the units need (model, weights). Called once in each worker process."""
        ...

    def split(self, unit: Unit) -> list[Unit]:
        """Smaller units that together do the same as ``unit``, to isolate a bad item; empty where it cannot be split."""
        ...


def digest(value: object) -> str:
    """16 hex digits of the SHA-256 of ``value`` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(_encoded(text)).hexdigest()[:16]


def as_json(value: object, *, sort_keys: bool = False) -> bytes:
    """Indented, for people too."""
    return _encoded(json.dumps(value, indent=1, sort_keys=sort_keys, ensure_ascii=False))


def _encoded(text: str) -> bytes:
    """JSON in UTF-8. Names of files need not be: what Python has for their other bytes (PEP 383) becomes an escape of JSON."""
    return text.encode(errors="backslashreplace")
