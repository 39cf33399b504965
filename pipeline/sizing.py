"""How many workers a cluster has room for, what each asks for, and how many units it works at."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.commands import MOST_IN_FLIGHT, OVERLAPPING
from pipeline.driver import RunOptions
from pipeline.errors import ConfigError


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """What each worker asks of Ray, how many there may be, and how many units each has in flight."""

    num_gpus: int
    num_cpus: float
    num_threads: int
    max_workers: int
    depth: int = OVERLAPPING


def plan_workers(nodes: list[dict[str, float]], options: RunOptions, grows: bool) -> WorkerPlan:
    """Size the workers for a cluster whose nodes have these resources ("CPU", "GPU", "memory").

    On a cluster that may grow there is room for one more than it has: a worker that waits for a machine is the demand that
    makes Ray's autoscaler add one. A GPU has as many units in flight as its share of a machine feeds; without one the model
    takes all cores.
    """
    num_gpus = int(sum(node.get("GPU", 0) for node in nodes))
    if options.device == "cuda" or (options.device == "auto" and num_gpus):
        if not num_gpus and not grows:
            raise ConfigError("there is no CUDA device on this machine; use --device cpu, or --address to join a cluster")
        holders = [node for node in nodes if node.get("GPU")]
        share = min((node.get("CPU", 0) / node["GPU"] for node in holders), default=1.0)
        depth = min((_depth(node, options) for node in holders), default=OVERLAPPING)
        return WorkerPlan(1, min(1.0, float(int(share))), max(1, int(share)), options.num_workers or num_gpus + grows, depth)
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    if options.num_workers and not grows:
        share = max(cpus, default=1) / options.num_workers
        return WorkerPlan(0, float(int(share)) if share >= 1 else share, max(1, int(share)), options.num_workers)
    size = max(1, min(options.cpus_per_worker, max(cpus, default=1)))
    return WorkerPlan(0, float(size), size, options.num_workers or max(1, sum(n // size for n in cpus)) + grows)


def _depth(node: dict[str, float], options: RunOptions) -> int:
    """How many units a GPU of that node has in flight."""
    if not options.unit_cpus:
        return OVERLAPPING
    fed = node.get("CPU", 0) // (node["GPU"] * options.unit_cpus)
    held = node.get("memory", 0) // (node["GPU"] * max(1, options.unit_bytes))
    return max(OVERLAPPING, min(MOST_IN_FLIGHT, int(fed), int(held)))
