"""The bench measures what it says, each way on the same pictures."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from jobs.cli import app
from pipeline.errors import ConfigError
from swinir.weights import default_cache


def test_images_compares_five_ways_and_reports_memory():
    ended = CliRunner().invoke(
        app, ["bench", "images", "--model", "nearest-x2", "--count", "6", "--width", "32", "--height", "24", "--rounds", "1",
              "--latency-ms", "1", "--memory", "40", "--json"],
    )  # fmt: skip
    assert ended.exit_code == 0, ended.output
    result = json.loads(ended.output)
    assert [row["way"] for row in result["rows"]] == [
        "bare model", "plain loop", "swinir images", "swinir images, over HTTP", "the same, 1 ms later",
    ]  # fmt: skip
    assert all(row["images_per_s"] > 0 and row["output_mpx_per_s"] > 0 for row in result["rows"])
    assert result["rows"][0]["of_bare"] == result["rows"][1]["of_plain"] == 1
    assert min(result["memory"].values()) > 0


@pytest.mark.parametrize("few", ["5", "-1"])
def test_images_refuses_too_few_pictures_for_a_tenth_of_them(few):
    ended = CliRunner().invoke(app, ["bench", "images", "--memory", few, "--model", "unknown"])  # refused before any work
    with pytest.raises(ConfigError, match=f"--memory takes 10 pictures or more, or 0 to leave it out, got {few}"):
        raise ended.exception


def run(*words: str) -> dict:
    ended = CliRunner().invoke(app, ["bench", *words, "--json"])
    assert ended.exit_code == 0, ended.output
    return json.loads(ended.output)


def test_model_measures_each_way_with_its_error():
    result = run("model", "--size", "24x16", "--rounds", "1", "--device", "cpu")
    assert [row["way"] for row in result["rows"]][:3] == ["reference", "plain", "swinir fp32"]
    assert result["rows"][0]["times"] == 1
    for row in result["rows"]:
        assert row["ms"] > 0
        assert row["of_peak"] > 0
        assert row["max_error"] < (1e-5 if "bf16" not in row["way"] else 0.1)
    # facts/model.md: about 0.85 M multiply-adds for a pixel of SwinIR-S x2, without the attention's own products.
    assert 0.85e-3 < result["gmacs"] / (24 * 16) * 1e3 / 1e3 < 1.2e-3


ALONE = """
import runpy, sys

class Without:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] in {"typer", "rich", "platformdirs", "ray", "av", "pyarrow", "fsspec", "pydantic", "yaml"}:
            raise ImportError(name)

sys.meta_path.insert(0, Without())
sys.argv[1:] = ["lightweight-x2", "16x8", "reference"]
runpy.run_module("jobs.measure", run_name="__main__")
"""


def test_a_machine_with_little_more_than_pytorch_measures_the_same():
    cache = {"SWINIR_CACHE": str(default_cache())}
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, env=os.environ | cache)
    assert done.returncode == 0, done.stderr
    assert [row["way"] for row in json.loads(done.stdout)["rows"]][:2] == ["reference", "swinir fp32"]


def test_model_counts_the_published_cost_of_the_classical_network():
    from jobs.measure import multiply_adds
    from swinir.model import SwinIR
    from swinir.presets import preset

    config = preset("classical-x4").config
    assert config is not None
    # 788.6 G multiply-adds for 256x256 are published (facts/model.md: the paper's table), attention left out.
    assert 0.95 < multiply_adds(SwinIR(config).eval(), 256, 256) / 788.6e9 < 1.1


def test_reuse_measures_every_clip():
    result = run("reuse", "--model", "nearest-x2", "--frames", "3", "--size", "64x48", "--tile", "32", "--device", "cpu")
    reused = {row["clip"]: row["reused"] for row in result["rows"]}
    assert reused["title card"] == pytest.approx(2 / 3)
    assert 0 < reused["screen recording"] < 1
    assert reused["film grain, 8 codes"] == 0
    near = {row["clip"]: row["near_reused"] for row in result["rows"]}
    assert near["still, noise of 1 code"] == pytest.approx(2 / 3)


def test_training_measures_each_way_with_its_gradient_s_error():
    rows = run("training", "--patch", "16", "--batch-size", "1", "--rounds", "1")["rows"]
    assert [row["way"] for row in rows][:2] == ["plain fp32", "plain bf16"]
    assert (rows[0]["times"], rows[0]["error"]) == (1, 0)
    for row in rows[1:]:
        assert row["ms"] > 0
        assert 0 < row["error"] < (1e-4 if "fp32" in row["way"] else 0.3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["training", "--model", "nearest-x2"], "is no network that can be trained"),
        (["training", "--model", "lightwait-x2"], "did you mean 'lightweight-x2'"),
        (["images", "--model", "foo"], "unknown model 'foo'"),
        (["model", "--against", "theirs"], "--against knows reference, plain, openvino"),
        (["model", "--size", "big"], "--size is WIDTHxHEIGHT"),
        (["model", "--model", "nearest-x2"], "is no network"),
        (["model", "--model", "lightwait-x2"], "did you mean 'lightweight-x2'"),
    ],
)
def test_settings_that_cannot_be_are_said(words, message):
    ended = CliRunner().invoke(app, ["bench", *words])
    assert isinstance(ended.exception, ConfigError)
    assert message in str(ended.exception)


def test_weights_that_cannot_be_fetched_are_said(monkeypatch, tmp_path):
    monkeypatch.setenv("SWINIR_CACHE", str(tmp_path))
    monkeypatch.setenv("SWINIR_OFFLINE", "1")
    ended = CliRunner().invoke(app, ["bench", "model", "--model", "pretrain-small-x4", "--size", "16x16"])
    assert isinstance(ended.exception, ConfigError)
    assert "SWINIR_OFFLINE is set" in str(ended.exception)
