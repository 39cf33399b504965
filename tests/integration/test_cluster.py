"""Real Ray and real deaths: nothing is lost, nothing is done twice, and the guilty are named."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import ray

from pipeline import cluster
from pipeline.cluster import connected, describe_death, is_node_loss, run_units
from pipeline.driver import Event, Outcome, RunOptions
from pipeline.errors import ConfigError, OutputError
from pipeline.ledger import Ledger
from pipeline.storage import Store
from pipeline.units import Unit
from pipeline.worker import Committed, Worker
from tests.workloads import Numbers, make_units

ROOT = Path(__file__).parents[2]
CPU = RunOptions(num_workers=2, device="cpu", stall_s=4, backoff_s=0.05)
FAULTS = {2: "raise", 5: "exit", 8: "hang", 11: "raise once", 14: "kill once", 17: "segfault", 20: "unpicklable", 23: "media"}

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def run(store: Store, units: list[Unit], options: RunOptions = CPU, events: list[Event] | None = None, **fields) -> Outcome:
    log = events if events is not None else []
    return run_units(units, Numbers(store, **fields), Ledger(store), options, log.append)


def outputs(store: Store, outcome: Outcome) -> dict[str, bytes]:
    return {unit_id: store.read(record["key"]) for unit_id, record in outcome.committed.items()}


def test_the_guilty_are_quarantined_and_every_innocent_is_committed(store: Store) -> None:
    options = replace(CPU, max_attempts=2, stall_s=3)
    outcome = run(store, make_units(40, FAULTS), options)
    guilty = {f"u{n:03}" for n, fault in FAULTS.items() if not fault.endswith("once")}
    assert set(outcome.quarantined) == guilty
    assert outputs(store, outcome) == {u.id: str(u.spec["number"]).encode() for u in make_units(40) if u.id not in guilty}
    evidence = {unit_id: lines[-1] for unit_id, lines in outcome.quarantined.items()}
    assert evidence["u002"].startswith("ValueError: bad number 2 [workloads.py:")
    assert evidence["u005"].startswith("the worker process died (crashed, or killed for memory): ")
    assert evidence["u008"] == "no progress for 3 s in unit u008"
    assert evidence["u020"].startswith("Unpicklable")
    assert outcome.quarantined["u023"] == ["u023: the file is truncated at frame 3"]
    assert all("\n" not in line and len(line) < 300 for line in evidence.values())


def test_progress_arrives_while_a_unit_runs(store: Store) -> None:
    seen: list[tuple[float, Event]] = []
    units = make_units(1, num_items=4)
    run_units(units, Numbers(store, seconds=1.2), Ledger(store), CPU, lambda event: seen.append((time.monotonic(), event)))
    beats = [(when, event.items_done) for when, event in seen if event.kind == "progress"]
    assert [items for _, items in beats] == [0, 0, 1, 2, 3, 4]
    assert beats[-1][0] - beats[2][0] > 0.5


def test_each_gpu_worker_has_a_gpu_of_its_own_and_a_cpu_worker_none(store: Store, tmp_path: Path) -> None:
    def devices(options: RunOptions) -> dict[str, set[str]]:
        notes = tmp_path / options.device
        notes.mkdir()
        run(Store(str(notes / "store")), make_units(8), options, seconds=0.3, notes=str(notes))
        found: dict[str, set[str]] = {}
        for path in notes.glob("u*"):
            pid, device, threads = path.read_text().split()
            found.setdefault(device, set()).add(f"{pid} {threads}")
        return found

    gpu = devices(RunOptions(device="cuda"))
    assert {device: len(pids) for device, pids in gpu.items()} == {"0": 1, "1": 1}
    notes = tmp_path / "none"
    notes.mkdir()
    run(store, make_units(2), CPU, notes=str(notes))
    assert {path.read_text().split(" ")[1] for path in notes.glob("u*")} == {""}


def test_a_gpu_worker_runs_as_many_units_at_once_as_its_machine_feeds(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "nodes", lambda: [{"CPU": 16.0, "GPU": 1.0, "memory": 1e12}])
    events: list[Event] = []
    run(store, make_units(4, num_items=2), RunOptions(device="cuda", unit_cpus=4), events, seconds=4.0)
    running: set[str] = set()
    most = 0
    for event in events:
        running ^= {event.unit_id} if event.items_done == 1 or event.kind == "committed" else set()
        most = max(most, len(running))
    assert most == 4


def test_an_actor_that_finds_no_machine_holds_nothing_up(store: Store) -> None:
    options = RunOptions(num_workers=5, device="cuda", backoff_s=0.05)  # there are two
    started = time.monotonic()
    assert len(run(store, make_units(30), options).committed) == 30
    assert time.monotonic() - started < 30


def test_two_attempts_at_once_leave_one_record(store: Store) -> None:
    actors = [ray.remote(Worker).options(num_cpus=1).remote(Numbers(store, seconds=0.5), Ledger(store), 1) for _ in range(2)]
    assert ray.get([actor.open.remote() for actor in actors]) == [None, None]
    unit = make_units(1)[0]
    streams = [actor.run.options(num_returns="streaming").remote(unit) for actor in actors]
    last = [[ray.get(ref) for ref in stream][-1] for stream in streams]
    for actor in actors:
        ray.kill(actor)
    assert last[0] == last[1] == Committed(Ledger(store).committed()["u000"])
    assert len(list(store.list("out"))) == 2, "the loser's output is an orphan"


def test_errors_while_opening(store: Store) -> None:
    with pytest.raises(ConfigError, match="unknown model 'x'; choose one of a, b"):
        run(store, make_units(3), open_fault="config")
    options = RunOptions(num_workers=1, device="cpu", backoff_s=0.01)
    with pytest.raises(OutputError, match=r"no worker can be kept alive; .*the worker process died"):
        run(store, make_units(3), options, open_fault="die")


def test_interrupts_count_only_in_the_main_thread(store: Store) -> None:
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(run(store, make_units(3))))
    thread.start()
    thread.join()
    assert len(outcomes[0].committed) == 3


class Driver:
    """``python -m tests.workloads`` in a session of its own."""

    def __init__(self, store: Store, num_units: int, seconds: float, **environment: str) -> None:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment}
        command = [sys.executable, "-m", "tests.workloads", store.url, str(num_units), str(seconds)]
        self.process = subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
        self.lines: list[str] = []

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def read_until(self, start: str, times: int = 1) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            times -= line.startswith(start)
            if not times:
                return
        raise AssertionError(f"ended before {start!r}:\n" + "\n".join(self.lines))


def test_a_driver_that_is_killed_loses_nothing(store: Store, ray_session: str) -> None:
    with Driver(store, 30, 0.3, RAY_ADDRESS=ray_session) as driver:
        driver.read_until("committed", times=8)  # then it is killed
    before = Ledger(store).committed()
    assert len(before) >= 8
    events: list[Event] = []
    outcome = run(store, make_units(30), events=events)
    assert len(outcome.committed) == 30
    assert outputs(store, outcome) == {u.id: str(u.spec["number"]).encode() for u in make_units(30)}
    assert sum(event.kind == "reused" for event in events) >= len(before)
    assert before.items() <= outcome.committed.items()
    # At most what was in flight ran twice: two workers, two units each.
    assert len(list(store.list("out"))) <= 30 + 4


def test_ctrl_c_in_a_terminal_finishes_what_is_in_flight(store: Store) -> None:
    """Ray is started by the driver, and every process in the terminal gets the signal."""
    with Driver(store, 200, 0.4, RAY_ADDRESS="") as driver:
        driver.read_until("committed", times=2)
        os.killpg(driver.process.pid, signal.SIGINT)
        driver.read_until("outcome")
        assert driver.process.wait(30) == 0
    _, num_committed, interrupted = driver.lines[-1].split()
    assert interrupted == "True"
    assert int(num_committed) == len(Ledger(store).committed())
    assert 3 <= int(num_committed) < 20
    assert not any(line.startswith(("worker_died", "failed")) for line in driver.lines)
    assert "draining" in {line.split()[0] for line in driver.lines}


def test_the_home_directory_gets_no_token(ray_session: str) -> None:
    assert not Path("~/.ray").expanduser().exists() or "RAY_AUTH_MODE" in os.environ


# Without Ray ----------------------------------------------------------------------------------------------------------------


def test_ray_client_is_refused_with_what_to_do(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ConfigError, match=r"ray://head:10001: Ray Client cannot stream progress; run this command on a node"):
        run(store, [], RunOptions(address="ray://head:10001"))


def test_an_address_where_nobody_listens_is_said_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    started = time.monotonic()
    with pytest.raises(ConfigError, match=f"cannot join the Ray cluster at {address}: .*refused; is `ray start --head`"):
        run(store, [], RunOptions(address=address))
    assert time.monotonic() - started < 15


@pytest.mark.parametrize(
    ("mode", "hint"), [(None, "; if the cluster wants the token of ~/.ray, set RAY_AUTH_MODE=token"), ("token", "")]
)
def test_a_cluster_that_wants_a_token_is_said(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: str | None, hint: str
) -> None:
    def init(**arguments: object) -> None:
        raise ConnectionError("Failed to connect")

    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0" * 64)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    with pytest.raises(ConfigError, match=f"cannot join the Ray cluster at auto: Failed to connect{hint}$"):
        run(store, [], RunOptions(address="auto"))


@pytest.mark.parametrize(("reason", "attempts"), [("The current node timed out during startup. This", 3), ("no shm", 1)])
def test_a_ray_that_does_not_start_is_one_line(
    store: Store, monkeypatch: pytest.MonkeyPatch, reason: str, attempts: int
) -> None:
    """Ray raises a bare Exception where a busy machine took too long: that is tried again."""
    tried: list[dict[str, object]] = []

    def init(**arguments: object) -> None:
        tried.append(arguments)
        raise Exception(reason)

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ConfigError, match=f"cannot start Ray on this machine: {reason}"):
        run(store, [])
    assert len(tried) == attempts


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """In place of Ray: a list that is empty while none is up."""
    up: list[str] = []

    def init(**arguments: object) -> None:
        assert not up, "started twice"
        up.append("Ray")
        os.environ["PYTHONBREAKPOINT"] = "ray.util.rpdb._driver_set_trace"

    monkeypatch.setattr(ray, "is_initialized", lambda: bool(up))
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", up.clear)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return up


def test_a_thread_does_not_work_on_the_ray_that_another_will_end(pretended: list[str]) -> None:
    seen: list[list[str]] = []
    entered, leave = threading.Event(), threading.Event()

    def second() -> None:
        with connected(None, None):
            entered.set()
            leave.wait(30)
            seen.append(list(pretended))

    thread = threading.Thread(target=second)
    with connected(None, None), connected(None, None):  # of one thread the inner is as the outer
        thread.start()
        assert not entered.wait(0.2)
    assert entered.wait(30)
    leave.set()
    thread.join()
    assert seen == [["Ray"]]
    assert not pretended


def test_threads_share_the_ray_that_was_there_before(pretended: list[str]) -> None:
    pretended.append("the user's")
    entered = threading.Event()

    def second() -> None:
        with connected(None, None):
            entered.set()

    thread = threading.Thread(target=second)
    with connected(None, None):
        thread.start()
        assert entered.wait(30)
    thread.join()
    assert pretended == ["the user's"]


@pytest.mark.parametrize("named", ["", "ipdb.set_trace"])
def test_a_breakpoint_stops_as_it_did_before(pretended: list[str], monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    monkeypatch.setenv("PYTHONBREAKPOINT", named)
    if not named:
        monkeypatch.delenv("PYTHONBREAKPOINT")
    with connected(None, None):
        pass
    assert os.environ.get("PYTHONBREAKPOINT", "") == named


def test_deaths_are_described_in_one_line() -> None:
    died = "The actor died.\n\tWorker exit type: X Worker exit detail: Worker crashed. Some common causes include: (1) ..."
    assert describe_death(ray.exceptions.RayActorError(error_msg=died)).endswith("killed for memory): Worker crashed.")
    lost = ray.exceptions.RayActorError(error_msg="The actor died because its node has died. Node Id: 1")
    assert is_node_loss(lost)
    assert describe_death(lost) == "the worker's node was lost or cannot be reached"
