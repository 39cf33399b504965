"""Runs a training loop as one process per GPU, on many machines, by Ray Train; where one dies, all resume at the last state."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ray.util.queue import Empty, Queue

from pipeline.cluster import connected, describe_death, nodes
from pipeline.driver import RunOptions
from pipeline.errors import ConfigError, OutputError, UpscaleError
from pipeline.sizing import WorkerPlan, plan_workers
from pipeline.worker import one_line

Loop = Callable[[str, Callable[[str], None]], Any]
"""Picklable. Takes the device of its process and what to tell lines to; finds torch.distributed ready, and its own state."""

_ATTEMPTS = 3  # in a row that leave the state as it was
_LISTEN_S = 0.5


def train_on_cluster(loop: Loop, state: Path, options: RunOptions) -> Iterator[str]:
    """The lines that ``loop`` tells while ``options.num_workers`` processes run it, on a cluster or on this machine.

    ``state`` is the file that the loop begins at, again after a death, on storage that all machines share. Raises the loop's
    own UpscaleError, ConfigError where the processes cannot be had, OutputError where they die without getting further.
    """
    with connected(options.address, loop) as grows:
        plan = plan_workers(nodes(), options, grows)
        num_workers = options.num_workers or plan.max_workers
        num_gpus = int(sum(node.get("GPU", 0) for node in nodes()))
        if plan.num_gpus and num_workers > num_gpus:
            if not grows:
                raise ConfigError(f"--workers {num_workers}: this machine has {num_gpus} GPUs; ask for no more than those")
            yield f"{num_workers} workers wait for a GPU each; the cluster has {num_gpus} now"
        lines = Queue(actor_options={"num_cpus": 0})
        idle = 0
        while idle < _ATTEMPTS:
            before = _version(state)
            fit = _Fit(_trainer(loop, state.parent, num_workers, plan, lines))
            yield from fit.heard(lines)
            if fit.error is None:
                return
            reason = _explained(fit.error)
            idle = idle + 1 if _version(state) == before else 0
            yield f"{reason}; going on from the last state"
        raise OutputError(f"training does not get further: {reason}; run the same command again to resume")


def _trainer(loop: Loop, folder: Path, num_workers: int, plan: WorkerPlan, lines: Queue) -> Any:  # noqa: ANN401 - Ray has no types
    try:
        from ray import train
        from ray.train.torch import TorchTrainer
    except ImportError as error:
        raise ConfigError(f"--workers needs Ray Train ({error}); pip install 'swinir-pipeline[train]'") from error
    resources = {"GPU": plan.num_gpus, "CPU": plan.num_cpus}
    return TorchTrainer(
        partial(_run_worker, loop, plan, lines),
        scaling_config=train.ScalingConfig(
            num_workers=num_workers,
            use_gpu=bool(plan.num_gpus),
            resources_per_worker={name: amount for name, amount in resources.items() if amount},
        ),
        # It holds a mark by which Ray Train sees that all machines share it, and is gone when the run ends.
        run_config=train.RunConfig(name="_ray_train", storage_path=str(folder)),
    )


def _run_worker(loop: Loop, plan: WorkerPlan, lines: Queue) -> None:
    import ray.train.torch
    import torch

    torch.set_num_threads(plan.num_threads)
    loop(str(ray.train.torch.get_device()) if plan.num_gpus else "cpu", lines.put)


class _Fit:
    """``fit`` of a trainer in a thread: in the main one it would take SIGINT for itself and exit with 0."""

    def __init__(self, trainer: Any) -> None:  # noqa: ANN401
        self.error: Exception | None = None
        self._folder = Path(trainer.run_config.storage_path, trainer.run_config.name)
        self._thread = threading.Thread(target=self._run, args=(trainer,), daemon=True)
        self._thread.start()

    def _run(self, trainer: Any) -> None:  # noqa: ANN401
        try:
            trainer.fit()
        except Exception as error:  # noqa: BLE001 - the caller looks at it
            self.error = error
        shutil.rmtree(self._folder, ignore_errors=True)

    def heard(self, lines: Queue) -> Iterator[str]:
        """What the workers tell until the fit is over."""
        while True:
            over = not self._thread.is_alive()
            try:
                yield lines.get(timeout=0.01 if over else _LISTEN_S)
            except Empty:
                if over:
                    return


def _explained(error: Exception) -> str:
    """One line for why the workers ended. Raises what another attempt would meet again."""
    logging.getLogger(__name__).info("%s", error)
    failures = list(getattr(error, "worker_failures", {}).values())
    for failure in failures:
        if isinstance(failure, UpscaleError):
            raise failure
    deaths = [dead for failure in failures if (dead := getattr(failure, "health_check_failure", None))]
    if deaths:
        return describe_death(deaths[0])
    return one_line(failures[0] if failures else getattr(error, "controller_failure", error))


def _version(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0
