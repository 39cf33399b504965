"""The commands eval, models and train, run as a user runs them."""

import json
from fractions import Fraction

import numpy as np
import pytest
import typer
from PIL import Image
from tiny import SMALL, picture
from typer.testing import CliRunner

from jobs import evaluate as evaluate_job
from jobs.evaluate import evaluate
from jobs.models import models
from jobs.train import train
from pipeline.errors import ConfigError, MediaError
from swinir.checkpoint import read_checkpoint
from swinir.model import SwinIRConfig
from swinir.presets import PRESETS, Preset
from swinir.resize import resize_uint8

app = typer.Typer(pretty_exceptions_enable=False)
app.command("eval")(evaluate)
app.command("models")(models)
app.command("train")(train)


def run(*arguments) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def folders(tmp_path):
    """Two pairs; one large image has an odd row and column too many."""
    (tmp_path / "lr").mkdir()
    (tmp_path / "hr").mkdir()
    for name, (height, width) in {"a": (64, 80), "b": (65, 71)}.items():
        hr = picture(height, width)
        Image.fromarray(hr).save(tmp_path / "hr" / f"{name}.png")
        lr = resize_uint8(hr[: height // 2 * 2, : width // 2 * 2], Fraction(1, 2))
        Image.fromarray(lr).save(tmp_path / "lr" / f"{name}{'x2' if name == 'b' else ''}.png")
    return tmp_path


def test_eval_ends_with_one_json_line_and_bicubic_scores_as_bicubic(folders):
    lines = run("eval", "--model", "bicubic-x2", "--lr", folders / "lr", "--hr", folders / "hr").splitlines()
    summary = json.loads(lines[-1])
    assert [row["image"] for row in summary["images"]] == ["a.png", "bx2.png"]
    assert summary["mean"]["psnr"] == pytest.approx(summary["mean"]["bicubic_psnr"], abs=0.1)
    assert any("mean" in line for line in lines[:-1])
    only = run("eval", "--model", "nearest-x2", "--lr", folders / "lr", "--hr", folders / "hr", "--json")
    assert json.loads(only)["mean"]["psnr"] < summary["mean"]["psnr"]


def test_eval_of_equal_images_has_no_number_json_cannot_say(folders):
    out = run("eval", "--model", "identity", "--lr", folders / "hr", "--hr", folders / "hr", "--json")
    assert json.loads(out)["mean"]["psnr"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "bicubic-x4"), "of the right scale"),
        (("--model", "lightwight-x2"), "did you mean 'lightweight-x2'"),
        (("--model", "bicubic-x2", "--weights", "none.pth"), "has no weights"),
        (("--lr", "nowhere"), "nowhere is not a folder"),
    ],
)
def test_eval_refuses_what_cannot_be(folders, arguments, message):
    with pytest.raises(ConfigError, match=message):
        run("eval", "--lr", folders / "lr", "--hr", folders / "hr", *arguments)


def test_eval_names_the_image_without_a_counterpart(folders):
    (folders / "hr" / "a.png").unlink()
    with pytest.raises(ConfigError, match="an image called a is wanted there"):
        evaluate_job.pair_images(folders / "lr", folders / "hr")


def test_models_lists_every_preset(tmp_path, monkeypatch):
    monkeypatch.setenv("SWINIR_CACHE", str(tmp_path))
    (tmp_path / "003_realSR_BSRGAN_DFO_s64w8_SwinIR-M_x4_GAN.pth").write_bytes(b"")
    rows = {row["model"]: row for row in json.loads(run("models", "--json"))}
    assert list(rows) == list(PRESETS)
    assert rows["real-x4"]["weights"] == "cached"
    assert rows["classical-x8"]["weights"] == "to download"
    assert rows["identity"]["weights"] == "none needed"
    assert rows["lightweight-x2"]["parameters"] == 910_152
    assert "classical-x8" in run("models")


def test_train_learns_resumes_and_exports(folders, tmp_path, monkeypatch):
    small = SwinIRConfig(**(SMALL | {"depths": (2,), "num_heads": (2,)}))
    monkeypatch.setattr("swinir.presets.preset", lambda name: Preset(name=name, task="test", scale=2, config=small))
    (tmp_path / "run.yaml").write_text("patch: 16\nbatch_size: 1\nsteps: 100\nsynthetic_pictures: 0\n")
    export = tmp_path / "out" / "tiny.safetensors"
    options = ("--config", tmp_path / "run.yaml", "--steps", 4, "--every", 2, "--precision", "fp32", "--device", "cpu")
    validation = ("--val-lr", folders / "lr", "--val-hr", folders / "hr", "--export", export)
    assert "step 0 of 4" in run("train", folders / "hr", tmp_path / "run", *options, *validation)
    assert "step 4 of 4" in run("train", folders / "hr", tmp_path / "run", *options)
    assert read_checkpoint(export).config == small
    assert not list(export.parent.glob("*.part"))


@pytest.mark.parametrize(
    ("yaml", "arguments", "message"),
    [
        ("stepps: 3", (), "unknown key 'stepps' in .*; did you mean 'steps'"),
        ("- 1", (), "must hold settings"),
        ("", ("--model", "jpeg-color-10"), "name an enlarging model"),
        ("", ("--model", "bicubic-x2"), "is not trained here"),
        ("", ("--val-lr", "x"), "belong together"),
    ],
)
def test_train_refuses_what_cannot_be(folders, tmp_path, yaml, arguments, message):
    (tmp_path / "run.yaml").write_text(yaml)
    with pytest.raises(ConfigError, match=message):
        run("train", folders / "hr", tmp_path / "run", "--config", tmp_path / "run.yaml", "--device", "cpu", *arguments)


def test_train_needs_photographs(tmp_path):
    with pytest.raises(MediaError, match="none: "):
        run("train", tmp_path / "none", tmp_path / "run", "--device", "cpu")
    (tmp_path / "LICENSE").write_text("free")
    with pytest.raises(ConfigError, match="holds no pictures"):
        run("train", tmp_path, tmp_path / "run", "--device", "cpu")


def test_pictures_may_be_of_any_mode(tmp_path):
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "grey.png")
    assert evaluate_job.read_rgb(tmp_path / "grey.png").shape == (4, 5, 3)
