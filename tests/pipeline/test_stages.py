"""Items computed ahead by a thread: order, errors, and nothing left running."""

import threading
import time

import pytest

from pipeline.stages import ahead, depth_for


def test_items_come_in_order() -> None:
    assert list(ahead(range(100), 3)) == list(range(100))


def test_an_error_comes_at_its_place() -> None:
    def failing():
        yield 1
        raise KeyError("two")

    items = ahead(failing(), 2)
    assert next(items) == 1
    with pytest.raises(KeyError, match="two"):
        next(items)


def test_closing_stops_the_thread_and_closes_the_source() -> None:
    closed = threading.Event()

    def endless():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    items = ahead(endless(), 2)
    next(items)
    before = threading.active_count()
    items.close()
    assert closed.is_set()
    assert threading.active_count() == before - 1


def test_never_more_than_the_depth_is_computed_ahead() -> None:
    made: list[int] = []
    items = ahead((made.append(i) or i for i in range(50)), 3)
    assert next(items) == 0
    time.sleep(0.2)
    assert len(made) <= 1 + 3 + 1  # used, queued, in the thread's hand
    items.close()


def test_depth_is_bounded_in_bytes() -> None:
    assert depth_for(1) == 8
    assert depth_for(100 << 20) == 2
    assert depth_for(1 << 40) == 1
