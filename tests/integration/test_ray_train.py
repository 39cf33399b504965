"""Training by Ray Train: the same weights as in one process, also where a process dies."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from pipeline.driver import RunOptions
from pipeline.errors import ConfigError, MediaError, OutputError
from pipeline.training import train_on_cluster
from tests.loops import DiesOnce, Fails, TinyRun
from tests.swinir.tiny import picture

CPU = RunOptions(num_workers=2, device="cpu")
SETTINGS = {"steps": 40, "batch_size": 2, "patch": 16, "synthetic_pictures": 0, "precision": "fp32"}

pytestmark = [
    pytest.mark.usefixtures("ray_session"),
    # Ray Train reads settings of Ray Data that Ray itself calls outdated.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore:.use_push_based_shuffle:DeprecationWarning"),
]


@pytest.fixture
def run(tmp_path: Path) -> TinyRun:
    (tmp_path / "photographs").mkdir()
    for seed in range(2):
        Image.fromarray(picture(48, 64, seed)).save(tmp_path / "photographs" / f"{seed}.png")
    (tmp_path / "together").mkdir()
    return TinyRun(str(tmp_path / "photographs"), None, tmp_path / "together", SETTINGS, None, None, every=1, export=None)


@pytest.mark.slow
def test_a_death_costs_no_step_and_the_weights_are_those_of_one_process(run: TinyRun, tmp_path: Path) -> None:
    alone = replace(run, out=tmp_path / "alone")
    alone("cpu", lambda line: None)
    lines = list(train_on_cluster(DiesOnce(run, tmp_path / "mark"), run.out / "state.pt", CPU))
    assert lines[0] == "2 photographs, 0 validation pairs, cpu, step 0 of 40"
    death = next(index for index, line in enumerate(lines) if line.endswith("; going on from the last state"))
    assert lines[death].startswith("the worker process died")
    assert "step 0 of 40" not in lines[death + 1]
    assert json.loads(lines[-1])["step"] == 40
    states = [torch.load(folder / "state.pt", weights_only=True) for folder in (alone.out, run.out)]
    for name, value in states[0]["model"].items():
        assert (value - states[1]["model"][name]).abs().max() < 1e-6, name
    assert {path.name for path in run.out.iterdir()} == {"state.pt", "log.jsonl", "curve.png", "pairs.png"}


def test_a_damaged_picture_ends_the_run_at_once(run: TinyRun) -> None:
    Path(run.data, "bad.png").write_bytes(Path(run.data, "0.png").read_bytes()[:500])
    told = []
    with pytest.raises(MediaError, match=r"bad\.png: damaged PNG picture"):
        told.extend(train_on_cluster(run, run.out / "state.pt", CPU))
    assert told == []


@pytest.mark.slow
def test_a_run_that_gets_nowhere_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.training._ATTEMPTS", 2)
    told = []
    with pytest.raises(OutputError, match=r"RuntimeError: no such luck.*; run the same command again to resume"):
        told.extend(train_on_cluster(Fails(), tmp_path / "state.pt", replace(CPU, num_workers=1)))
    assert told.count("on cpu") == 2


def test_workers_must_find_a_gpu_each(run: TinyRun) -> None:
    with pytest.raises(ConfigError, match="--workers 3: this machine has 2 GPUs"):
        list(train_on_cluster(run, run.out / "state.pt", RunOptions(num_workers=3, device="cuda")))
