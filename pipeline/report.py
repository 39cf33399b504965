"""What a run tells while it goes: a progress bar on a terminal, plain lines elsewhere, JSON lines for machines."""

from __future__ import annotations

import json
import platform
import sys
import time
from importlib import metadata
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from pipeline import __version__
from pipeline.driver import Event

PLAIN_INTERVAL_S = 5.0


def software_versions() -> dict[str, str]:
    """The versions of all that a result's bytes depend on."""
    libraries = {name: metadata.version(name) for name in ("torch", "av", "ray", "numpy", "pillow", "pyarrow")}
    return {"swinir-pipeline": __version__, "python": platform.python_version(), **libraries}


class Listener(Protocol):
    """Hears how a job goes."""

    def phase(self, name: str, total: int | None) -> None: ...
    def frames(self, count: int) -> None: ...
    def event(self, event: Event) -> None: ...
    def note(self, line: str) -> None: ...
    def warn(self, line: str) -> None: ...


class Tally:
    """Items done over all units, from events: done units whole, others as far as their current attempt is."""

    def __init__(self) -> None:
        self._items: dict[str, int] = {}
        self._reused = 0
        self._of_worker: dict[int, int] = {}
        self.started = time.monotonic()

    def note(self, event: Event) -> None:
        if event.kind == "reused":
            self._reused += event.items_done
        elif event.kind == "progress":
            gained = event.items_done - self._items.get(event.unit_id, 0)
            self._of_worker[event.worker] = self._of_worker.get(event.worker, 0) + max(0, gained)
            self._items[event.unit_id] = event.items_done
        elif event.kind == "committed":
            self._items[event.unit_id] = event.items_done
        elif event.kind == "failed":
            self._items[event.unit_id] = 0

    @property
    def done(self) -> int:
        return self._reused + sum(self._items.values())

    @property
    def rate(self) -> float:
        """Items a second since the start."""
        return (self.done - self._reused) / max(1e-9, time.monotonic() - self.started)

    def per_worker(self) -> str:
        elapsed = max(1e-9, time.monotonic() - self.started)
        return " ".join(f"#{worker}:{count / elapsed:.2f}" for worker, count in sorted(self._of_worker.items()))


class _Telling:
    """What the three listeners share; ``noun`` is what a job counts."""

    def __init__(self, noun: str = "frames") -> None:
        self._noun = noun
        self._phase, self._tally = "", Tally()
        self._total: int | None = None

    def phase(self, name: str, total: int | None) -> None:
        self._phase, self._total, self._tally = name, total, Tally()
        self._changed()

    def frames(self, count: int) -> None:
        self._update(count)

    def event(self, event: Event) -> None:
        self._tally.note(event)
        if event.kind in ("failed", "worker_died", "quarantined"):
            self.warn(f"{event.kind.replace('_', ' ')}: {event.message}")
        elif event.kind == "draining":
            self.note(event.message)
        self._update(self._tally.done)

    def _changed(self) -> None:
        raise NotImplementedError

    def _update(self, done: int) -> None:
        raise NotImplementedError

    def note(self, line: str) -> None:
        raise NotImplementedError

    def warn(self, line: str) -> None:
        raise NotImplementedError


class TerminalListener(_Telling):
    """One live line: phase, bar, frames, rate, time left, rate per worker. Use as a context manager."""

    def __init__(self, console: Console, noun: str = "frames") -> None:
        super().__init__(noun)
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(), console=console, transient=True,
        )  # fmt: skip
        self._task: TaskID | None = None

    def __enter__(self) -> TerminalListener:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _changed(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(self._phase, total=self._total, rate="")

    def _update(self, done: int) -> None:
        if self._task is not None:
            rate = f"{self._tally.rate:.2f} {self._noun}/s {self._tally.per_worker()}" if self._phase == "upscaling" else ""
            self._progress.update(self._task, completed=done, rate=rate)

    def note(self, line: str) -> None:
        self._progress.console.print(escape(line))

    def warn(self, line: str) -> None:
        self._progress.console.print(f"[yellow]{escape(line)}[/]")


class PlainListener(_Telling):
    """A line when a phase begins and every few seconds; for logs."""

    def __init__(self, noun: str = "frames") -> None:
        super().__init__(noun)
        self._last = 0.0

    def __enter__(self) -> PlainListener:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _changed(self) -> None:
        self.note(self._phase)
        self._last = time.monotonic()

    def _update(self, done: int) -> None:
        now = time.monotonic()
        if now - self._last >= PLAIN_INTERVAL_S:
            self._last = now
            self._tell(done)

    def _tell(self, done: int) -> None:
        line = f"{self._phase}: {done}" + (f" of {self._total}" if self._total else "") + f" {self._noun}"
        rate = self._tally.rate
        if self._phase == "upscaling" and rate > 0 and self._total:
            line += f", {rate:.2f} {self._noun}/s, {(self._total - done) / rate:.0f} s left, {self._tally.per_worker()}"
        self.note(line)

    def note(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    def warn(self, line: str) -> None:
        self.note(f"warning: {line}")


class JsonListener(PlainListener):
    """The same as JSON lines on standard output."""

    def _changed(self) -> None:
        self._print({"phase": self._phase, "total": self._total})
        self._last = time.monotonic()

    def _tell(self, done: int) -> None:
        self._print({"phase": self._phase, self._noun: done, "total": self._total, "per_second": round(self._tally.rate, 3)})

    def note(self, line: str) -> None:
        self._print({"note": line})

    def warn(self, line: str) -> None:
        self._print({"warning": line})

    def _print(self, row: dict[str, Any]) -> None:
        print(json.dumps(row, ensure_ascii=False), flush=True)


def listener_for(as_json: bool, noun: str = "frames") -> TerminalListener | PlainListener:
    """The listener that suits the output; progress goes to standard error, JSON to standard output."""
    console = Console(stderr=True)
    if as_json:
        return JsonListener(noun)
    return TerminalListener(console, noun) if console.is_terminal else PlainListener(noun)
