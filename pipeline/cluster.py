"""Runs units on Ray actors, one per accelerator or group of CPU cores; knows Ray, as training.py alone does besides."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray
import ray.exceptions

from pipeline.commands import MOST_IN_FLIGHT
from pipeline.driver import Died, Event, Opened, Outcome, Placed, Reported, RunOptions, Signal, run_on_pool
from pipeline.errors import ConfigError
from pipeline.ledger import Ledger
from pipeline.sizing import plan_workers
from pipeline.units import Cause, Unit, Workload
from pipeline.worker import Failed, Worker, one_line

_OBJECT_STORE_BYTES = 200_000_000  # descriptions and weights; pixels never go there
_REFRESH_S = 5.0  # between two looks at what the cluster has
_CONNECT_TIMEOUT_S = 10.0
_START_ATTEMPTS = 3  # of half a minute each
_LOCAL_ENVIRONMENT = {
    # A local instance listens to this machine only; with tokens Ray would write one into the home directory.
    "RAY_AUTH_MODE": "disabled",
    # Ray's own choice is 15, with which a busy machine starves the workers; who wants that starts the command with nice.
    "RAY_worker_niceness": "0",
}
_GET_TIMEOUT_S = 60.0  # a ready value is fetched at once, unless its node has just gone
_OURS = threading.RLock()  # held while a connection is ours, which all threads of a process would share


def run_units(
    units: Iterable[Unit], workload: Workload, ledger: Ledger, options: RunOptions, on_event: Callable[[Event], None]
) -> Outcome:
    """Run units on a cluster: the one this process is connected to, else the one at ``options.address``, else a local one.

    As many workers as there are GPUs (or groups of CPU cores), following the cluster as it grows and shrinks. What is started
    here is shut down here. Raises as ``driver.run_on_pool``, and ConfigError where there is no cluster at the address.
    """
    with connected(options.address, workload) as joined:
        pool = _RayPool(workload, ledger, options, joined)
        try:
            return run_on_pool(pool, units, workload, ledger, options, on_event)
        finally:
            pool.close()


@contextmanager
def connected(address: str | None, task: object) -> Iterator[bool]:
    """Connect to Ray, or start it; True where the cluster is not ours alone and may grow. Workers import the task's package.

    While one thread is inside, another waits, unless the process was connected before.
    """
    with _OURS:
        joins = not ray.is_initialized()
        if joins:
            with _joined(address, task) as grows:
                yield grows
    if not joins:
        yield False


@contextmanager
def _joined(address: str | None, task: object) -> Iterator[bool]:
    address = address or os.environ.get("RAY_ADDRESS")  # set for the entry point of a submitted job
    if address and address.startswith("ray://"):
        raise ConfigError(
            f"--address {address}: Ray Client cannot stream progress; run this command on a node of the cluster with "
            "--address auto, or through 'ray job submit'"
        )
    with _environment("RAY_USAGE_STATS_ENABLED", "0"):
        if not address or address == "local":
            with ExitStack() as stack:
                for name, value in _LOCAL_ENVIRONMENT.items():
                    stack.enter_context(_environment(name, value))
                stack.enter_context(_started(_local_arguments(), "start Ray on this machine"))
                yield False
        else:
            _refuse_silence(address)
            with _started({"address": address, **_shipped_code(task)}, f"join the Ray cluster at {address}"):
                yield True


def _local_arguments() -> dict[str, Any]:
    # Ray counts the machine's cores, which a container or taskset may not let us use.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"address": "local", "include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES, "num_cpus": cores}


@contextmanager
def _started(arguments: dict[str, Any], doing: str) -> Iterator[None]:
    terminate, debugger = signal.getsignal(signal.SIGTERM), os.environ.get("PYTHONBREAKPOINT")
    _replace_in_ray("utils", "get_entrypoint_name", lambda: "swinir")  # a command line with names that are no UTF-8 stops it
    for attempt in range(1, _START_ATTEMPTS + 1):
        try:
            ray.init(**arguments, log_to_driver=False, logging_level=logging.ERROR)
            break
        except Exception as error:  # it raises bare ones too, where a busy machine is slow to start it
            ray.shutdown()
            if attempt == _START_ATTEMPTS or "timed out during startup" not in str(error):
                raise ConfigError(f"cannot {doing}: {' '.join(str(error).split())[:300]}{_about_tokens(arguments)}") from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminate)  # Ray's prints the stacks of its own threads
    os.environ.pop("PYTHONBREAKPOINT", None)  # Ray's would stay, and nothing stops at a breakpoint() any more
    if debugger is not None:
        os.environ["PYTHONBREAKPOINT"] = debugger
    # Paragraphs about dead workers on standard output, in spite of log_to_driver; we report them.
    _replace_in_ray("worker", "print_to_stdstream", lambda *args, **kwargs: None)
    try:
        yield
    finally:
        ray.shutdown()


def _about_tokens(arguments: dict[str, Any]) -> str:
    """What else to try: where there is a token, `ray start` asks for it, but who joins has none unless told."""
    kept = os.path.exists(os.path.expanduser("~/.ray/auth_token"))
    untold = arguments["address"] != "local" and "RAY_AUTH_MODE" not in os.environ
    return "; if the cluster wants the token of ~/.ray, set RAY_AUTH_MODE=token" if kept and untold else ""


def _refuse_silence(address: str) -> None:
    """Raise ConfigError where nothing listens at host:port: Ray itself waits for minutes, with warnings in its own words."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return  # "auto", or a form that Ray knows
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"cannot join the Ray cluster at {address}: {error}; is `ray start --head` running there?") from error


def _replace_in_ray(module: str, name: str, function: Callable[..., object]) -> None:
    """One of its private functions, where this version has it."""
    if hasattr(found := sys.modules.get(f"ray._private.{module}"), name):
        setattr(found, name, function)


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set a variable that is not set, inside the block."""
    if name in os.environ:
        yield
        return
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)


def _shipped_code(task: object) -> dict[str, Any]:
    """The packages that the workers import, unless a submitted job has brought its working directory."""
    if "working_dir" in os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", ""):
        return {}
    names = {"pipeline", "swinir", type(task).__module__.partition(".")[0]}
    specs = [importlib.util.find_spec(name) for name in sorted(names) if name != "__main__"]
    folders = [spec.submodule_search_locations[0] for spec in specs if spec and spec.submodule_search_locations]
    return {"runtime_env": {"py_modules": folders, "excludes": ["__pycache__"]}}


@dataclass(slots=True)
class _Actor:
    handle: Any
    placed: Any  # reference that is ready once the actor has a process, then None
    opened: Any  # reference to what open() returned, then None
    running: dict[str, Any] = field(default_factory=dict)  # streaming generators by unit id


class _RayPool:
    def __init__(self, workload: Workload, ledger: Ledger, options: RunOptions, grows: bool) -> None:
        self._workload = ray.put(workload)  # sent to each node once, not to each actor
        self._ledger = ledger
        self._options = options
        self._grows = grows
        self._actors: dict[int, _Actor] = {}
        self._plan = plan_workers(nodes(), options, grows)
        self._planned = time.monotonic()

    def max_workers(self) -> int:
        if time.monotonic() - self._planned > _REFRESH_S and self._grows:
            self._plan, self._planned = plan_workers(nodes(), self._options, self._grows), time.monotonic()
        return self._plan.max_workers

    def depth(self) -> int:
        return self._plan.depth

    def start(self, worker: int) -> None:
        plan = self._plan
        # Ray hides no GPU from an actor that asked for none.
        environment = {} if plan.num_gpus else {"runtime_env": {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}}
        handle = (
            ray.remote(Worker)
            .options(
                num_gpus=plan.num_gpus,
                num_cpus=plan.num_cpus,
                max_concurrency=MOST_IN_FLIGHT + 1,  # which stays, though the depth follows the cluster
                max_restarts=0,
                max_task_retries=0,
                **environment,
            )
            .remote(self._workload, self._ledger, plan.num_threads)
        )
        self._actors[worker] = _Actor(handle, handle.__ray_ready__.remote(), handle.open.remote())

    def kill(self, worker: int) -> None:
        if actor := self._actors.pop(worker, None):
            ray.kill(actor.handle, no_restart=True)

    def assign(self, worker: int, unit: Unit) -> None:
        actor = self._actors[worker]
        actor.running[unit.id] = actor.handle.run.options(num_returns="streaming").remote(unit)

    def poll(self, timeout_s: float) -> list[Signal]:
        waiting = {ref: (worker, unit_id) for worker, unit_id, ref in self._references()}
        if not waiting:
            time.sleep(timeout_s)
            return []
        ready, _ = ray.wait(list(waiting), num_returns=1, timeout=timeout_s)
        if ready:
            ready, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=0)
        signals: list[Signal] = []
        for ref in ready:
            worker, unit_id = waiting[ref]
            if worker in self._actors:  # not buried a moment ago
                signals += self._hear(worker, unit_id, ref)
        return signals

    def close(self) -> None:
        for worker in list(self._actors):
            self.kill(worker)

    def _references(self) -> Iterator[tuple[int, str, Any]]:
        for worker, actor in self._actors.items():
            for ref in (actor.placed, actor.opened):
                if ref is not None:
                    yield worker, "", ref
            for unit_id, generator in actor.running.items():
                yield worker, unit_id, generator

    def _hear(self, worker: int, unit_id: str, ref: Any) -> list[Signal]:  # noqa: ANN401 - Ray has no types
        actor = self._actors[worker]
        try:
            if ref is actor.placed:
                ray.get(ref, timeout=_GET_TIMEOUT_S)
                actor.placed = None
                return [Placed(worker)]
            if ref is actor.opened:
                actor.opened = None
                return [Opened(worker, ray.get(ref, timeout=_GET_TIMEOUT_S))]
            return [Reported(worker, unit_id, ray.get(next(ref), timeout=_GET_TIMEOUT_S))]
        except StopIteration:
            actor.running.pop(unit_id, None)
            return []
        except ray.exceptions.RayTaskError as error:
            failed = Failed(one_line(error.cause), Cause.UNKNOWN)
            actor.running.pop(unit_id, None)
            return [Reported(worker, unit_id, failed) if unit_id else Opened(worker, failed)]
        except ray.exceptions.RayError as error:
            # "Unavailable" is not dead: without this, two processes would hold the GPU.
            self.kill(worker)
            return [Died(worker, describe_death(error), is_node_loss(error))]


def nodes() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def is_node_loss(error: Exception) -> bool:
    """Whether the machine, and not what ran on it, is to blame for the death of an actor."""
    lost = (ray.exceptions.ActorUnavailableError, ray.exceptions.NodeDiedError, ray.exceptions.GetTimeoutError)
    text = str(error)
    return isinstance(error, lost) or "node has died" in text or "node was terminated" in text or "node is dead" in text


def describe_death(error: Exception) -> str:
    """Ray's paragraphs about a death, in one line."""
    text = " ".join(str(error).split())
    if is_node_loss(error):
        return "the worker's node was lost or cannot be reached"
    if isinstance(error, ray.exceptions.OutOfMemoryError) or ("OOM" in text and "memory monitor" in text.lower()):
        return "the worker was killed for memory; give it fewer units at a time or a smaller tile"
    detail = re.search(r"Worker exit detail: (.*?)(?: Some common causes| The actor|$)", text)
    return f"the worker process died (crashed, or killed for memory): {(detail.group(1) if detail else text)[:160]}"
