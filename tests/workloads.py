"""Tiny workloads that Ray workers can import: units that succeed, and units that fail in every way there is."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, MediaError
from pipeline.storage import Store
from pipeline.units import Unit


def make_units(count: int, faults: dict[int, str] | None = None, num_items: int = 1) -> list[Unit]:
    faults = faults or {}
    return [Unit(f"u{n:03}", num_items, {"number": n, "fault": faults.get(n, "")}) for n in range(count)]


@dataclass
class Numbers:
    """Each unit writes its number, after ``seconds``, under an attempt-unique key of ``store``."""

    store: Store
    seconds: float = 0.0
    open_fault: str = ""
    notes: str = ""  # a folder in which every attempt leaves a file: what ran, where

    def open(self) -> Numbers:
        if self.open_fault == "config":
            raise ConfigError("unknown model 'x'; choose one of a, b")
        if self.open_fault == "die":
            os._exit(7)
        if self.open_fault == "raise":
            raise RuntimeError("no weights")
        return self

    def split(self, unit: Unit) -> list[Unit]:
        """Halves; the fault stays with the half that holds item ``bad_item``."""
        if unit.num_items < 2:
            return []
        first, size = unit.spec.get("first", 0), unit.num_items // 2
        parts = []
        for start, count in ((first, size), (first + size, unit.num_items - size)):
            bad = start <= unit.spec.get("bad_item", 0) < start + count
            spec = {**unit.spec, "first": start, "fault": unit.spec["fault"] if bad else ""}
            parts.append(Unit(f"{unit.id.partition('-')[0]}-{start}-{count}", count, spec))
        return parts

    def run(self, unit: Unit, attempt: str) -> Generator[int, None, dict[str, Any]]:
        self._note(unit, attempt)
        fault = unit.spec["fault"]
        yield 0
        if fault.endswith(" once"):
            fault = fault.removesuffix(" once") if self.store.create_once(f"faults/{unit.id}", b"") else ""
        misbehave(fault, unit)
        for item in range(unit.num_items):
            time.sleep(self.seconds / unit.num_items)
            yield item + 1
        key = f"out/{unit.id}.{attempt}"
        self.store.write(key, str(unit.spec["number"]).encode())
        return {"key": key, "number": unit.spec["number"], "attempt": attempt}

    def _note(self, unit: Unit, attempt: str) -> None:
        if self.notes:
            devices = os.environ.get("CUDA_VISIBLE_DEVICES")
            Path(self.notes, f"{unit.id}.{attempt}").write_text(f"{os.getpid()} {devices} {os.environ.get('OMP_NUM_THREADS')}")


@dataclass
class Unpicklable(Exception):  # noqa: N818
    lock: Any = field(default_factory=lambda: (_ for _ in ()))


def misbehave(fault: str, unit: Unit) -> None:
    match fault:
        case "raise":
            raise ValueError(f"bad number {unit.spec['number']}")
        case "unpicklable":
            raise Unpicklable
        case "media":
            raise MediaError(f"{unit.id}: the file is truncated at frame 3")
        case "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        case "config":
            raise ConfigError("--crf 99 is out of range; use 0 to 51")
        case "exit":
            os._exit(3)
        case "segfault":
            ctypes.string_at(0)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(10)  # a signal takes a moment
        case "hang":
            time.sleep(10_000)


def main() -> None:
    """A driver of its own: ``python -m tests.workloads FOLDER NUM_UNITS SECONDS``, for tests that kill or interrupt it."""
    import sys

    from pipeline import cluster
    from pipeline.driver import Event, RunOptions
    from pipeline.ledger import Ledger

    store = Store(sys.argv[1])

    def show(event: Event) -> None:
        print(event.kind, event.unit_id, flush=True)

    options = RunOptions(num_workers=2, device="cpu", backoff_s=0.05)
    outcome = cluster.run_units(make_units(int(sys.argv[2])), Numbers(store, float(sys.argv[3])), Ledger(store), options, show)
    print("outcome", len(outcome.committed), outcome.interrupted, flush=True)


if __name__ == "__main__":
    main()
