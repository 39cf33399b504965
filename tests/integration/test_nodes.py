"""Machines come and go while units run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_lost_machine_costs_no_unit_and_a_new_one_is_used(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": ""}
    command = [sys.executable, "-m", "tests.elastic", str(tmp_path / "store")]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["committed"] == result["given"] >= 60
    assert (result["quarantined"], result["failed"]) == (0, 0)
    assert result["worker_died"] >= 1
    assert result["worker_started"] >= 3
