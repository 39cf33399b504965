"""Workers, and the units in flight in each, are sized to the machines."""

import pytest

from pipeline.driver import RunOptions
from pipeline.errors import ConfigError
from pipeline.sizing import plan_workers

GIB = 1 << 30
UNITS = RunOptions(unit_cpus=4, unit_bytes=3 * GIB)


@pytest.mark.parametrize(
    ("nodes", "options", "grows", "expected"),
    [
        ([{"CPU": 2}], RunOptions(), False, (0, 2.0, 2, 1)),
        ([{"CPU": 16}], RunOptions(), False, (0, 4.0, 4, 4)),
        ([{"CPU": 16}], RunOptions(num_workers=1), False, (0, 16.0, 16, 1)),
        ([{"CPU": 2}], RunOptions(num_workers=4), False, (0, 0.5, 1, 4)),
        ([{"CPU": 16}, {"CPU": 6}, {"memory": 1.0}], RunOptions(), True, (0, 4.0, 4, 6)),
        ([{"CPU": 16, "GPU": 2}], RunOptions(), False, (1, 1.0, 8, 2)),
        ([{"CPU": 16, "GPU": 2}, {"CPU": 4, "GPU": 1}], RunOptions(), True, (1, 1.0, 4, 4)),
        ([{"CPU": 16, "GPU": 2}], RunOptions(device="cpu"), False, (0, 4.0, 4, 4)),
        ([{"CPU": 16}], RunOptions(device="cuda", num_workers=8), True, (1, 1.0, 1, 8)),
        ([{"GPU": 1}], RunOptions(), False, (1, 0.0, 1, 1)),
    ],
)
def test_workers_are_sized_to_the_machines(nodes, options, grows, expected) -> None:
    plan = plan_workers(nodes, options, grows)
    assert (plan.num_gpus, plan.num_cpus, plan.num_threads, plan.max_workers) == expected


def test_no_gpu_where_one_is_demanded_is_said_at_once() -> None:
    with pytest.raises(ConfigError, match="there is no CUDA device on this machine; use --device cpu"):
        plan_workers([{"CPU": 2}], RunOptions(device="cuda"), False)


@pytest.mark.parametrize(
    ("nodes", "options", "depth"),
    [
        ([{"CPU": 16, "GPU": 1, "memory": 80 * GIB}], UNITS, 4),
        ([{"CPU": 16, "GPU": 1, "memory": 10 * GIB}], UNITS, 3),
        ([{"CPU": 16, "GPU": 1, "memory": 2 * GIB}], UNITS, 2),
        ([{"CPU": 6, "GPU": 1, "memory": 80 * GIB}], UNITS, 2),
        ([{"CPU": 64, "GPU": 4, "memory": 80 * GIB}], UNITS, 4),
        ([{"CPU": 64, "GPU": 4, "memory": 80 * GIB}, {"CPU": 3, "GPU": 1, "memory": 80 * GIB}], UNITS, 2),
        ([{"CPU": 16, "GPU": 1, "memory": 80 * GIB}], RunOptions(), 2),
        ([{"CPU": 16, "GPU": 1}], UNITS, 2),
        ([{"CPU": 999, "GPU": 1, "memory": 999 * GIB}], UNITS, 16),
        ([{"CPU": 16, "memory": 80 * GIB}], RunOptions(device="cuda", unit_cpus=4, unit_bytes=GIB), 2),
        ([{"CPU": 64, "memory": 80 * GIB}], UNITS, 2),
    ],
)
def test_a_gpu_has_as_many_units_in_flight_as_its_share_of_the_machine_feeds(nodes, options, depth) -> None:
    assert plan_workers(nodes, options, True).depth == depth
