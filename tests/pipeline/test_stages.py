"""Items computed ahead by a thread: order, errors, and nothing left running."""

import threading
import time

import pytest

from pipeline.stages import ahead, depth_for, pulsed


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


def test_what_waits_is_bounded_in_size_and_one_item_always_may() -> None:
    made: list[int] = []
    items = ahead((made.append(i) or 40 for i in range(9)), 8, lambda size: size, 100)
    next(items)
    time.sleep(0.2)
    assert len(made) == 1 + 2 + 1  # used, waiting, in the thread's hand
    assert list(items) == [40] * 8
    assert list(ahead([400, 500], 8, lambda size: size, 100)) == [400, 500]


def test_a_slow_source_is_heard_of_between_its_items() -> None:
    def slow():
        yield 1
        time.sleep(0.5)
        yield 2

    items = list(pulsed(slow(), 1, 0.1))
    assert [item for item in items if item] == [1, 2]
    assert items.count(None) >= 2


def test_depth_is_bounded_in_bytes() -> None:
    assert depth_for(1) == 8
    assert depth_for(100 << 20) == 2
    assert depth_for(1 << 40) == 1
