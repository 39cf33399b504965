"""Stages of work that overlap: a generator in a thread of its own, a function in several, each a few items ahead."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")

END = object()
POLL_S = 0.1


def ahead(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    """The same items in the same order, computed up to ``depth`` ahead of their use by a thread.

    An exception in ``items`` is raised here, at its place. When this generator is closed, the thread stops after the item it is
    at, and has ended before the close returns.
    """
    done: queue.Queue[object] = queue.Queue(depth)
    closed = threading.Event()
    failure: list[BaseException] = []

    def put(item: object) -> bool:
        while not closed.is_set():
            try:
                done.put(item, timeout=POLL_S)
            except queue.Full:
                continue
            return True
        return False

    def fill() -> None:
        source = iter(items)
        try:
            for item in source:
                if not put(item):
                    break
        except BaseException as error:  # noqa: BLE001  (it is raised in the consumer)
            failure.append(error)
        finally:
            close = getattr(source, "close", None)
            if close:
                close()
            put(END)

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()
    try:
        while (item := done.get()) is not END:
            yield item  # type: ignore[misc]
        if failure:
            raise failure[0]
    finally:
        closed.set()
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
