"""A cluster of pretended nodes that loses one and gains one while units run: ``python -m tests.elastic FOLDER``.

A process of its own, because Ray connects a process to one cluster at a time.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from pipeline import cluster
from pipeline.driver import Event, RunOptions
from pipeline.ledger import Ledger
from pipeline.storage import Store
from pipeline.units import Unit
from tests.workloads import Numbers, make_units

NODE = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": 80_000_000, "memory": 10**9}


def main() -> None:
    os.environ.update(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "object_store_memory": 80_000_000, "include_dashboard": False}
    nodes: Any = Cluster(initialize_head=True, head_node_args=head)
    first, _ = nodes.add_node(**NODE), nodes.add_node(**NODE)
    store, events, given = Store(sys.argv[1]), [], []

    def units() -> Iterator[Unit]:
        """As many as it takes until the machine that came has a worker: how long that is, Ray alone knows."""
        for unit in make_units(1000):
            if events.count("worker_started") > 2 and len(given) >= 60:
                return
            given.append(unit)
            yield unit

    def watch(event: Event) -> None:
        events.append(event.kind)
        if event.kind == "committed" and events.count("committed") == 8:
            nodes.remove_node(first, allow_graceful=False)
            nodes.add_node(**NODE)

    outcome = cluster.run_units(units(), Numbers(store, 0.5), Ledger(store), RunOptions(address=nodes.address), watch)
    nodes.shutdown()
    counts = {kind: events.count(kind) for kind in ("worker_started", "worker_died", "failed")}
    counts |= {"given": len(given), "committed": len(outcome.committed), "quarantined": len(outcome.quarantined)}
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
