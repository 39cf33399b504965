"""The policy under a virtual clock: thousands of random schedules, and one test for each rule."""

from __future__ import annotations

import itertools

import pytest

from pipeline.commands import Assign, KillWorker, Policy, Quarantine, StartWorker
from pipeline.scheduler import Scheduler
from pipeline.units import Cause
from tests.pipeline.world import make_unit, random_world

NUM_SCHEDULES = 10_000


def test_whatever_fails_every_unit_ends_committed_or_quarantined_and_no_innocent_is_lost() -> None:
    for seed in range(NUM_SCHEDULES):
        world = random_world(seed)
        world.run()
        guilty = {u for u, fault in world.faults.items() if not fault.endswith("once")}
        ended = world.committed | set(world.quarantined) | world.split
        assert not world.committed & set(world.quarantined), seed
        assert {f"u{n}" for n in range(world.num_units)} <= ended, seed
        assert set(world.quarantined) == {u for u in guilty if u not in world.split}, seed


def drive(scheduler: Scheduler, now: float = 0.0) -> list:
    """Decide, and let every started worker be ready at once."""
    commands = scheduler.decide(now)
    for command in commands:
        if isinstance(command, StartWorker):
            scheduler.worker_placed(command.worker, now)
            scheduler.worker_ready(command.worker, now)
    return commands + (drive(scheduler, now) if any(isinstance(c, StartWorker) for c in commands) else [])


def assigned(commands: list) -> list[tuple[int, str]]:
    return [(c.worker, c.unit.id) for c in commands if isinstance(c, Assign)]


def test_units_are_read_as_they_are_needed() -> None:
    read = itertools.count()
    units = (make_unit(next(read)) for _ in range(10_000_000))
    drive(Scheduler(units, Policy(), 3))
    assert next(read) <= 10


def test_each_worker_gets_a_unit_before_any_gets_a_second() -> None:
    commands = drive(Scheduler(map(make_unit, range(3)), Policy(), 2))
    assert assigned(commands) == [(0, "u0"), (1, "u1"), (0, "u2")]


def test_the_last_units_are_shared_with_a_worker_that_is_about_to_be_ready() -> None:
    scheduler = Scheduler(map(make_unit, range(2)), Policy(), 2)
    scheduler.decide(0)
    scheduler.worker_placed(0, 0)
    scheduler.worker_placed(1, 0)
    scheduler.worker_ready(0, 1)
    assert assigned(scheduler.decide(1)) == [(0, "u0")]
    scheduler.worker_ready(1, 2)
    assert assigned(scheduler.decide(2)) == [(1, "u1")]


def test_a_deep_worker_leaves_as_many_units_for_those_that_are_about_to_be_ready() -> None:
    scheduler = Scheduler(map(make_unit, range(12)), Policy(depth=8), 4)
    scheduler.decide(0)
    for worker in range(4):
        scheduler.worker_placed(worker, 0)
    scheduler.worker_ready(0, 1)
    assert assigned(scheduler.decide(1)) == [(0, "u0"), (0, "u1"), (0, "u2")]


def test_a_deep_worker_alone_takes_all_that_it_can() -> None:
    assert len(assigned(drive(Scheduler(map(make_unit, range(7)), Policy(depth=8), 1)))) == 7


def test_no_more_workers_than_units() -> None:
    commands = drive(Scheduler(map(make_unit, range(2)), Policy(), 8))
    assert sum(isinstance(c, StartWorker) for c in commands) == 2


def test_a_worker_without_work_is_given_back() -> None:
    scheduler = Scheduler(map(make_unit, range(2)), Policy(depth=1), 2)
    drive(scheduler)
    scheduler.unit_done(1, "u1", 1)
    assert scheduler.decide(1) == [KillWorker(1, "")]


def test_two_units_that_died_together_run_alone_and_only_the_bad_one_is_charged() -> None:
    scheduler = Scheduler(map(make_unit, range(2)), Policy(backoff_s=0, max_attempts=2), 1)
    drive(scheduler)
    scheduler.worker_died(0, "died", 1)
    assert assigned(drive(scheduler, 1)) == [(1, "u0")]
    scheduler.worker_died(1, "died of u0", 2)
    assert assigned(drive(scheduler, 2)) == [(2, "u1")]
    scheduler.unit_done(2, "u1", 3)
    assert assigned(drive(scheduler, 3)) == [(2, "u0")]
    scheduler.worker_died(2, "died of u0", 4)
    assert drive(scheduler, 4) == [Quarantine(make_unit(0), ["died (not alone)", "died of u0", "died of u0"])]
    assert scheduler.finished


def test_a_suspect_runs_alone_however_much_else_there_is_to_do() -> None:
    scheduler = Scheduler(map(make_unit, range(99)), Policy(), 1)
    drive(scheduler)
    scheduler.worker_died(0, "died", 1)
    assert assigned(drive(scheduler, 1)) == [(1, "u0")]
    assert drive(scheduler, 2) == []
    scheduler.unit_done(1, "u0", 3)
    assert assigned(drive(scheduler, 3)) == [(1, "u1")]
    scheduler.unit_done(1, "u1", 4)
    assert assigned(drive(scheduler, 4)) == [(1, "u2"), (1, "u3")]


def test_a_unit_that_killed_a_worker_alone_gets_no_company_the_next_time() -> None:
    scheduler = Scheduler(map(make_unit, range(99)), Policy(depth=1, backoff_s=0), 1)
    drive(scheduler)
    scheduler.worker_died(0, "died", 1)
    scheduler.policy = Policy(depth=2, backoff_s=0)
    assert assigned(drive(scheduler, 1)) == [(1, "u0")]


def test_a_busy_worker_is_emptied_for_a_suspect() -> None:
    scheduler = Scheduler(map(make_unit, range(99)), Policy(), 2)
    drive(scheduler)
    scheduler.max_workers = 1  # the cluster has shrunk
    scheduler.worker_died(0, "died", 1)
    assert drive(scheduler, 1) == []
    scheduler.unit_done(1, "u1", 2)
    assert drive(scheduler, 2) == []
    scheduler.unit_done(1, "u3", 3)
    assert assigned(drive(scheduler, 3)) == [(1, "u0")]


def test_only_the_oldest_unit_of_a_worker_must_show_progress() -> None:
    scheduler = Scheduler(map(make_unit, range(2)), Policy(stall_s=10), 1)
    drive(scheduler)
    for now in range(0, 100, 5):
        scheduler.heartbeat(0, "u0", now)
        assert scheduler.decide(now) == []
    scheduler.unit_done(0, "u0", 100)
    assert scheduler.decide(109) == []
    assert scheduler.decide(111)[0] == KillWorker(0, "no progress for 10 s in unit u1")


def test_a_worker_may_wait_for_a_machine_for_ever_but_not_hang_while_opening() -> None:
    scheduler = Scheduler([make_unit(0)], Policy(stall_s=10), 1)
    scheduler.decide(0)
    assert scheduler.decide(100_000) == []
    scheduler.worker_placed(0, 100_000)
    assert scheduler.decide(100_011)[0] == KillWorker(0, "no progress for 10 s in loading the model")


def test_a_final_error_is_not_tried_again() -> None:
    scheduler = Scheduler([make_unit(0)], Policy(), 1)
    drive(scheduler)
    scheduler.unit_raised(0, "u0", "MediaError: truncated", 1, Cause.INPUT)
    assert Quarantine(make_unit(0), ["MediaError: truncated"]) in scheduler.decide(1)


def test_a_unit_whose_surroundings_fail_is_tried_again_and_never_split() -> None:
    scheduler = Scheduler([make_unit(0, 8)], Policy(backoff_s=0), 1, lambda unit: [make_unit(n) for n in range(8)])
    for attempt in range(Policy().max_attempts):
        assert assigned(drive(scheduler, attempt)) == [(0, "u0")], "and its worker is kept"
        scheduler.unit_raised(0, "u0", "no space left", attempt, Cause.SURROUNDINGS)
    assert scheduler.decide(9)[0] == Quarantine(make_unit(0, 8), ["no space left"] * 3, innocent=True)


def test_a_lost_node_is_charged_to_nobody_until_it_becomes_a_habit() -> None:
    scheduler = Scheduler([make_unit(0)], Policy(backoff_s=0), 1)
    for worker in range(Policy().max_node_losses + 1 + Policy().max_attempts):
        assert assigned(drive(scheduler, worker)) == [(worker, "u0")]
        scheduler.node_lost(worker, "node lost", worker)
    assert isinstance(scheduler.decide(99)[0], Quarantine)


def test_a_failed_unit_is_tried_in_another_slot() -> None:
    scheduler = Scheduler(map(make_unit, range(6)), Policy(depth=1, backoff_s=0), 2)
    drive(scheduler)
    scheduler.worker_died(0, "died", 1)
    assert (2, "u0") not in assigned(drive(scheduler, 1))
    scheduler.unit_done(1, "u1", 2)
    assert (1, "u0") in assigned(drive(scheduler, 2))


def test_a_slot_where_everything_dies_is_closed_and_costs_no_unit() -> None:
    scheduler = Scheduler(map(make_unit, range(60)), Policy(depth=2, backoff_s=0), 3)
    slot_of, done, started, now = {}, set(), 0, 0.0
    while not scheduler.finished:
        now += 1
        for command in drive(scheduler, now):
            assert not isinstance(command, Quarantine)
            if isinstance(command, StartWorker):
                slot_of[command.worker] = "bad" if "bad" not in slot_of.values() else "good"
                started += 1
            elif isinstance(command, Assign):
                if slot_of[command.worker] == "bad":
                    scheduler.worker_died(command.worker, "broken machine", now)
                    slot_of[command.worker] = "gone"
                else:
                    done.add(command.unit.id)
                    scheduler.unit_done(command.worker, command.unit.id, now)
    assert len(done) == 60
    assert started <= 3 + 2 * Policy().max_slot_deaths


def test_workers_that_never_start_are_a_failure_of_the_run() -> None:
    scheduler = Scheduler([make_unit(0)], Policy(backoff_s=1), 2)
    now = 0.0
    while scheduler.failure is None:
        for command in scheduler.decide(now):
            if isinstance(command, StartWorker):
                scheduler.worker_placed(command.worker, now)
                scheduler.worker_died(command.worker, "no CUDA", now)
        now += 1
    assert scheduler.failure == "no worker can be kept alive; the last one died of: no CUDA"
    assert now < 20


def test_a_worker_in_which_units_keep_failing_is_replaced() -> None:
    scheduler = Scheduler(map(make_unit, range(9)), Policy(backoff_s=9, max_raises=2), 1)
    drive(scheduler)
    scheduler.unit_raised(0, "u0", "CUDA error", 1)
    scheduler.unit_raised(0, "u1", "CUDA error", 1)
    assert [c for c in scheduler.decide(1) if isinstance(c, KillWorker)] == [KillWorker(0, "2 units in a row failed in it")]


def test_a_drain_finishes_what_is_in_flight_and_starts_nothing() -> None:
    scheduler = Scheduler(map(make_unit, range(9)), Policy(), 1)
    drive(scheduler)
    scheduler.drain()
    scheduler.unit_done(0, "u0", 1)
    assert assigned(scheduler.decide(1)) == []
    assert not scheduler.finished
    scheduler.unit_done(0, "u1", 2)
    assert scheduler.finished


def test_attempts_wait_longer_each_time() -> None:
    scheduler = Scheduler([make_unit(0)], Policy(backoff_s=2, max_raises=9), 1)
    drive(scheduler)
    scheduler.unit_raised(0, "u0", "busy", 0)
    assert assigned(scheduler.decide(1)) == []
    assert assigned(scheduler.decide(2)) == [(0, "u0")]
    scheduler.unit_raised(0, "u0", "busy", 2)
    assert assigned(scheduler.decide(5)) == []
    assert assigned(scheduler.decide(6)) == [(0, "u0")]


@pytest.mark.parametrize("wrong", [{"depth": 0}, {"stall_s": 0}, {"max_slot_deaths": 3}])
def test_a_policy_that_cannot_work_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"positive|must exceed"):
        Policy(**wrong)
