"""Units run in this process: the same loop as on a cluster, without the processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.driver import Event, Outcome, RunOptions
from pipeline.errors import ConfigError, OutputError
from pipeline.ledger import Ledger
from pipeline.local import run_units
from pipeline.storage import Store
from pipeline.units import Unit
from tests.workloads import Numbers, make_units

QUICK = RunOptions(backoff_s=0.01)


class Log(list[Event]):
    def kinds(self, unit_id: str) -> list[str]:
        return [event.kind for event in self if event.unit_id == unit_id]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def run(store: Store, units: list[Unit], on_event: Callable[[Event], None] = lambda event: None, **fields: str) -> Outcome:
    return run_units(units, Numbers(store, **fields), Ledger(store), QUICK, on_event)


def test_every_unit_is_committed_with_the_output_its_record_names(store: Store) -> None:
    log = Log()
    outcome = run(store, make_units(5, num_items=3), log.append)
    assert sorted(outcome.committed) == [f"u{n:03}" for n in range(5)]
    assert [store.read(record["key"]) for record in outcome.committed.values()] == [b"0", b"1", b"2", b"3", b"4"]
    assert (outcome.quarantined, outcome.interrupted) == ({}, False)
    assert [event.items_done for event in log if event.unit_id == "u000" and event.kind == "progress"] == [0, 0, 1, 2, 3]


def test_a_second_run_does_nothing(store: Store) -> None:
    first = run(store, make_units(5))
    log = Log()
    assert run(store, make_units(5), log.append) == first
    assert {event.kind for event in log} == {"reused"}
    assert len(list(store.list("out"))) == 5


def test_a_run_does_only_what_is_missing(store: Store) -> None:
    run(store, make_units(3))
    assert len(run(store, make_units(5)).committed) == 5
    assert len(list(store.list("out"))) == 5


def test_failures_are_tried_again_then_given_up_with_the_evidence(store: Store) -> None:
    log = Log()
    outcome = run(store, make_units(4, {1: "raise", 2: "raise once", 3: "media"}), log.append)
    assert sorted(outcome.committed) == ["u000", "u002"]
    assert len(outcome.quarantined["u001"]) == 3
    assert outcome.quarantined["u001"][0].startswith("ValueError: bad number 1 [workloads.py:")
    assert outcome.quarantined["u003"] == ["u003: the file is truncated at frame 3"], "the input will not get better"
    assert log.kinds("u002").count("failed") == 1
    assert Ledger(store).quarantined() == outcome.quarantined


def test_what_was_given_up_stays_so_until_cleared(store: Store) -> None:
    first = run(store, make_units(2, {1: "raise"}))
    assert run(store, make_units(2)) == first
    Ledger(store).clear_quarantine()
    assert len(run(store, make_units(2)).committed) == 2


def test_a_bad_item_is_isolated_by_halving(store: Store) -> None:
    units = make_units(2, {1: "media"}, num_items=8)
    units[1].spec["bad_item"] = 5
    outcome = run(store, units)
    assert list(outcome.quarantined) == ["u001-5-1"]
    assert sorted(outcome.committed) == ["u000", "u001-0-4", "u001-4-1", "u001-6-2"]
    num_outputs = len(list(store.list("out")))
    assert run(store, units) == outcome
    assert len(list(store.list("out"))) == num_outputs, "parts that are done are not done again"


def test_a_full_disk_is_blamed_on_no_item(store: Store) -> None:
    units = make_units(3, {0: "full once", 1: "full"}, num_items=8)
    outcome = run(store, units)
    assert sorted(outcome.committed) == ["u000", "u002"]
    assert (list(outcome.quarantined), outcome.innocent) == (["u001"], {"u001"}), "in parts it would fail as well"
    assert outcome.quarantined["u001"][-1].startswith("OSError: [Errno 28] No space left on device")
    units[1].spec["fault"] = ""
    assert len(run(store, units).committed) == 3, "the next run tries it again"


def test_a_wrong_setting_stops_the_run(store: Store) -> None:
    with pytest.raises(ConfigError, match="--crf 99 is out of range; use 0 to 51"):
        run(store, make_units(4, {0: "config"}))
    with pytest.raises(ConfigError, match="unknown model 'x'; choose one of a, b"):
        run(store, make_units(4), open_fault="config")


def test_a_workload_that_never_opens_is_an_output_error(store: Store) -> None:
    with pytest.raises(OutputError, match=r"no worker can be kept alive; the last one died of: RuntimeError: no weights"):
        run(store, make_units(4), open_fault="raise")


def test_the_first_record_stands_and_the_later_output_is_an_orphan(store: Store) -> None:
    class Zombie(Numbers):
        """Another attempt at the same unit commits while this one computes."""

        def run(self, unit, attempt):
            record = yield from super().run(unit, attempt)
            Ledger(self.store).commit(unit.id, {**record, "attempt": "zombie"})
            return record

    outcome = run_units(make_units(1), Zombie(store), Ledger(store), QUICK, lambda event: None)
    assert outcome.committed["u000"]["attempt"] == "zombie"
    assert Ledger(store).committed() == outcome.committed


def test_ctrl_c_finishes_what_is_in_flight_and_the_next_run_the_rest(store: Store) -> None:
    before = signal.getsignal(signal.SIGINT)

    def interrupt(event: Event) -> None:
        if event.kind == "committed" and event.unit_id == "u001":
            os.kill(os.getpid(), signal.SIGINT)

    outcome = run(store, make_units(9), interrupt)
    assert outcome.interrupted
    assert 2 <= len(outcome.committed) <= 4
    assert len(Ledger(store).committed()) == len(outcome.committed)
    assert signal.getsignal(signal.SIGINT) is before
    assert not (again := run(store, make_units(9))).interrupted
    assert len(again.committed) == 9


def test_a_second_ctrl_c_stops_at_once(store: Store) -> None:
    def interrupt(event: Event) -> None:
        if event.kind in ("committed", "draining"):
            os.kill(os.getpid(), signal.SIGINT)

    outcome = run(store, make_units(9), interrupt)
    assert outcome.interrupted
    assert len(outcome.committed) == 1


def test_sigterm_stops_at_once(store: Store) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def terminate(event: Event) -> None:
        if event.kind == "committed":
            os.kill(os.getpid(), signal.SIGTERM)

    outcome = run(store, make_units(9), terminate)
    assert outcome.interrupted
    assert len(outcome.committed) == 1
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_interrupt_after_the_last_unit_changes_nothing(store: Store) -> None:
    def interrupt(event: Event) -> None:
        if event.kind == "committed" and event.unit_id == "u001":
            os.kill(os.getpid(), signal.SIGINT)

    assert not run(store, make_units(2), interrupt).interrupted
