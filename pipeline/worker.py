"""What one worker process does: open the workload once, then run units and commit their records."""

from __future__ import annotations

import errno
import logging
import sys
import traceback
import uuid
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, MediaError, OutputError, UpscaleError
from pipeline.ledger import Ledger
from pipeline.units import Cause, Runner, Unit, Workload


@dataclass(frozen=True, slots=True)
class Progress:
    """A heartbeat."""

    items_done: int


@dataclass(frozen=True, slots=True)
class Committed:
    """The last report of a unit that is done. ``record`` is the one that stands, be it ours or another attempt's."""

    record: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Failed:
    """The last report of a unit that raised."""

    reason: str  # one line
    cause: Cause


Report = Progress | Committed | Failed


class Worker:
    """cluster.py makes it a Ray actor; local.py and the tests call it directly. ``run`` may be called from several threads."""

    def __init__(self, workload: Workload, ledger: Ledger, num_threads: int | None) -> None:
        self._workload = workload
        self._ledger = ledger
        self._num_threads = num_threads
        self._runner: Runner | None = None

    def open(self) -> Failed | None:
        """Load what the units need. Returns, rather than raises, what went wrong."""
        try:
            self._runner = self._workload.open()
        except Exception as error:  # noqa: BLE001 - reported as a value: not every exception survives pickling
            return _failed(error)
        if self._num_threads and (torch := sys.modules.get("torch")):
            torch.set_num_threads(self._num_threads)
        return None

    def run(self, unit: Unit) -> Generator[Report, None, None]:
        """Report progress while the unit runs, then that it is committed or has failed.

        The output is stored under a name that only this attempt uses, and the record after it. Of two attempts at one unit
        the first record wins; the other's output is an orphan.
        """
        assert self._runner is not None, "open() comes first"
        try:
            if (record := self._ledger.record(unit.id)) is not None:
                yield Committed(record)
                return
            yield Progress(0)
            units = self._runner.run(unit, uuid.uuid4().hex[:12])
            while True:
                try:
                    yield Progress(next(units))
                except StopIteration as stop:
                    record = stop.value
                    break
            if not self._ledger.commit(unit.id, record):
                record = self._ledger.record(unit.id) or record
            yield Committed(record)
        except Exception as error:  # noqa: BLE001 - reported as a value: not every exception survives pickling
            yield _failed(error)


def _failed(error: Exception) -> Failed:
    logging.getLogger(__name__).info("%s", "".join(traceback.format_exception(error)))
    return Failed(one_line(error), cause_of(error))


def cause_of(error: Exception) -> Cause:
    match error:
        case MediaError():
            return Cause.INPUT
        case ConfigError():
            return Cause.SETTINGS
        case OutputError():
            return Cause.SURROUNDINGS
        case OSError(errno=errno.ENOSPC | errno.EDQUOT | errno.EMFILE | errno.ENFILE):  # of a folder for temporary files
            return Cause.SURROUNDINGS
    return Cause.UNKNOWN


def one_line(error: BaseException) -> str:
    """What went wrong in one line: our own errors as they are, others with their type and place."""
    text = " ".join(str(error).split())
    if isinstance(error, UpscaleError):
        return text
    frames = traceback.extract_tb(error.__traceback__)
    place = f" [{Path(frames[-1].filename).name}:{frames[-1].lineno}]" if frames else ""
    return f"{type(error).__name__}: {text[:300]}{place}" if text else f"{type(error).__name__}{place}"
