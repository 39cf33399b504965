"""Stages of work that overlap: a generator in a thread of its own, a function in several, each a few items ahead."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")

PULSE_S = 5.0  # between two looks at whether a worker that gives nothing yet gets on


def ahead(items: Iterable[T], depth: int, size: Callable[[T], int] | None = None, budget: int = 0) -> Generator[T, None, None]:
    """The same items in the same order, computed up to ``depth`` ahead of their use by a thread.

    With ``size``, those that wait are of at most ``budget`` together, or one. An exception in ``items`` is raised here, at its
    place. When this generator is closed, the thread stops after the item it is at, and has ended before the close returns.
    """
    return _ahead(items, depth, size, budget, None)  # type: ignore[return-value]  # None is for idle times only


def pulsed(items: Iterable[T], depth: int, idle_s: float) -> Generator[T | None, None, None]:
    """As ``ahead``, with None in between whenever nothing came for ``idle_s``."""
    return _ahead(items, depth, None, 0, idle_s)


def _ahead(
    items: Iterable[T], depth: int, size: Callable[[T], int] | None, budget: int, idle_s: float | None
) -> Generator[T | None, None, None]:
    waiting: deque[tuple[T, int]] = deque()
    changed = threading.Condition()
    held = 0
    closed = ended = False
    failure: list[BaseException] = []

    def put(item: T) -> bool:
        nonlocal held
        num = size(item) if size else 0
        with changed:
            changed.wait_for(lambda: closed or not waiting or (len(waiting) < depth and held + num <= budget))
            if not closed:
                waiting.append((item, num))
                held += num
                changed.notify_all()
            return not closed

    def fill() -> None:
        nonlocal ended
        source = iter(items)
        try:
            for item in source:
                if not put(item):
                    break
                del item  # else it would stay until the next one is there
            close = getattr(source, "close", None)
            if close:
                close()
        except BaseException as error:  # noqa: BLE001  (it is raised in the consumer)
            failure.append(error)
        finally:
            with changed:
                ended = True
                changed.notify_all()

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()
    try:
        while True:
            with changed:
                changed.wait_for(lambda: waiting or ended, idle_s)
                item: T | None = None
                if waiting:
                    item, num = waiting.popleft()
                    held -= num
                    changed.notify_all()
                elif ended:
                    break
            yield item
            del item
        if failure:
            raise failure[0]
    finally:
        with changed:
            closed = True
            changed.notify_all()
        thread.join()


def in_parallel(pool: ThreadPoolExecutor, function: Callable[[S], T], items: Iterable[S], depth: int) -> Iterator[T]:
    """``function`` of each item in the same order, up to ``depth`` of them at once in the threads of ``pool``."""
    source = iter(items)
    running: deque[Future[T]] = deque(pool.submit(function, item) for item in islice(source, depth))
    while running:
        yield running.popleft().result()
        running.extend(pool.submit(function, item) for item in islice(source, 1))


def depth_for(item_bytes: int, budget_bytes: int = 256 << 20) -> int:
    """How many items may wait in a queue of ``budget_bytes``: at least 1, at most 8."""
    return max(1, min(8, budget_bytes // max(1, item_bytes)))
