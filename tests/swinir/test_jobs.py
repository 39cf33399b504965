"""The commands eval, models and train, run as a user runs them."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from tiny import SMALL, network, picture
from typer.testing import CliRunner

from jobs.datasets import find_dataset, pair_images, read_rgb
from jobs.evaluate import evaluate, published
from jobs.measure import multiply_adds
from jobs.models import describe_preset, mmacs_per_pixel, models
from jobs.train import starting_point, train
from pipeline.errors import ConfigError, MediaError
from pipeline.preflight import lease
from swinir.checkpoint import read_checkpoint, to_bytes
from swinir.evaluation import Task, as_tensor, degraded, published_scores, truth_for
from swinir.metrics import luma, psnr
from swinir.model import SwinIR, SwinIRConfig
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


def test_eval_says_how_far_plain_colours_move(folders):
    found = json.loads(run("eval", "--model", "bicubic-x2", "--colours"))
    assert found == {"model": "bicubic-x2", "weights_sha256": "", "colours": 125, "median_codes": 0.0, "worst_codes": 0.0}
    with pytest.raises(ConfigError, match="takes grey pictures"):
        run("eval", "--model", "denoise-gray-15", "--weights", "random", "--colours")
    for more in ([folders / "hr"], ["--lr", folders / "lr", "--hr", folders / "hr"], ["--strip", folders / "a.png"]):
        with pytest.raises(ConfigError, match="--colours measures no pictures"):
            run("eval", "--model", "bicubic-x2", "--colours", *more)


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
        (("Set5",), "stand for the names of test sets"),
        (("--model", "identity", "--noise", 9, "--jpeg", 9), "two tasks; give one"),
        (("--markdown", "nowhere/t.md"), "nowhere is not a folder; make it first"),
        (("--model", "unknown", "--markdown", "."), r"\. cannot be written: it is a folder; name a file"),
        (("--model", "unknown", "--strip", "."), r"\. cannot be written: it is a folder; name a file"),
        (("--model", "bicubic-x2", "--markdown", "/dev/full"), r"/dev/full cannot be written \("),
        (("--model", "bicubic-x2", "--strip", "/dev/full"), r"/dev/full cannot be written \("),
    ],
)
def test_eval_refuses_what_cannot_be(folders, arguments, message):
    with pytest.raises(ConfigError, match=message):
        run("eval", "--lr", folders / "lr", "--hr", folders / "hr", *arguments)


def test_eval_names_the_image_without_a_counterpart(folders):
    (folders / "hr" / "a.png").unlink()
    with pytest.raises(ConfigError, match="an image called a is wanted there"):
        pair_images(folders / "lr", folders / "hr")


def test_eval_of_a_set_by_name_makes_the_small_images_that_are_not_there(folders):
    given = json.loads(run("eval", "--model", "bicubic-x2", "--lr", folders / "lr", "--hr", folders / "hr", "--json"))
    (folders / "hr").rename(folders / "Set5")
    made = json.loads(run("eval", "Set5", "--datasets", folders, "--model", "bicubic-x2", "--json"))
    assert [row["image"] for row in made["images"]] == ["a.png", "b.png"]
    assert made["mean"] == given["mean"]
    assert made["datasets"][0]["published"] == {"ours": [33.67], "baseline": [33.67]}
    usual = json.loads(run("eval", "--datasets", folders, "--model", "bicubic-x2", "--json"))
    assert [row["dataset"] for row in usual["datasets"]] == ["Set5"]


def test_eval_writes_the_table_and_a_strip(folders):
    options = ("--markdown", folders / "t.md", "--strip", folders / "s.png")
    run("eval", folders / "hr", "--model", "nearest-x2", *options)
    lines = (folders / "t.md").read_text().splitlines()
    assert lines[2:4] == ["| image | PSNR dB | SSIM | bicubic dB | bicubic SSIM |", "| --- | --- | --- | --- | --- |"]
    assert [line.split("|")[1].strip() for line in lines[4:]] == ["a.png", "b.png", "mean"]
    with Image.open(folders / "s.png") as strip:
        assert strip.width > 3 * 71


@pytest.mark.parametrize(("task", "in_chans"), [("noise", 1), ("noise", 3), ("jpeg", 1), ("jpeg", 3)])
def test_eval_restores_with_a_network_beside_the_input(folders, task, in_chans):
    model = network(upscale=1, in_chans=in_chans, upsampler="", depths=(2,), num_heads=(2,))
    config = {"config": json.dumps(asdict(model.config))}
    (folders / "m.safetensors").write_bytes(to_bytes(model.state_dict(), config))
    options = ("--model", "auto", "--weights", folders / "m.safetensors", f"--{task}", 20, "--device", "cpu", "--json")
    rows = json.loads(run("eval", folders / "hr", *options))
    untouched = json.loads(run("eval", folders / "hr", "--model", "identity", f"--{task}", 20, "--json"))
    assert (rows["task"], rows["level"], rows["grey"]) == (task, 20, in_chans == 1)
    assert ("psnr_b" in rows["mean"], "input_psnr_b" in rows["mean"]) == (task == "jpeg",) * 2
    assert rows["mean"]["psnr"] != rows["mean"]["input_psnr"]
    assert untouched["mean"]["psnr"] == untouched["mean"]["input_psnr"]
    if in_chans == 3:
        assert rows["mean"]["input_psnr"] == untouched["mean"]["input_psnr"]


def test_published_figures_stand_beside_the_noise_and_quality_they_are_of():
    network = SimpleNamespace(name="denoise-color-25")
    assert published("Kodak24", Task("noise", 25), network) == {"ours": [32.89]}
    assert published("Kodak24", Task("noise", 50), network) == {}
    assert published("LIVE1", Task("jpeg", 40, grey=True), SimpleNamespace(name="jpeg-gray-40")) == {"ours": [34.67]}
    assert published("LIVE1", Task("sr", 2), SimpleNamespace(name="nearest-x2")) == {}


@pytest.mark.parametrize(("name", "scale", "known"), [("Set5", 2, 33.67), ("Set5", 4, 28.43), ("Set14", 4, 26.09)])
def test_bicubic_scores_what_was_published(shared, name, scale, known):
    """On given reductions and on ours, bit for bit; without SSIM, which takes most of the time."""
    scores = []
    for small, large in find_dataset(name, shared / "data" / "images", scale).pairs:
        lr, task = read_rgb(small), Task("sr", scale)
        truth = truth_for(task, read_rgb(large))
        assert torch.equal(degraded(task, truth), as_tensor(lr))
        a, b = (luma(image)[scale:-scale, scale:-scale] for image in (resize_uint8(lr, scale), truth))
        scores.append(psnr(a, b))
    assert round(float(np.mean(scores)), 2) == known
    assert published_scores()[f"bicubic-x{scale}"][name] == [known]


def test_models_lists_every_preset(tmp_path, monkeypatch):
    monkeypatch.setenv("SWINIR_CACHE", str(tmp_path))
    (tmp_path / "003_realSR_BSRGAN_DFO_s64w8_SwinIR-M_x4_GAN.pth").write_bytes(b"")
    rows = {row["model"]: row for row in json.loads(run("models", "--json"))}
    assert list(rows) == list(PRESETS)
    assert rows["real-x4"]["weights"] == "cached"
    assert rows["classical-x8"]["weights"] == "to download"
    assert rows["identity"]["weights"] == "none needed"
    assert rows["lightweight-x2"]["parameters"] == 910_152
    assert [rows[name]["speed"] for name in ("bicubic-x2", "lightweight-x2", "classical-x4", "real-large-x4")] == [
        "instant", "fast", "slow", "very slow",
    ]  # fmt: skip
    assert rows["anime-hfa2k-x2"]["weights"] == "by hand"
    assert rows["anime-bubble-x2"]["licence"] == "CC-BY-NC-SA-4.0"
    assert re.search(r"^generated-lexica-x2 +generated +x2 +59 MB +to download$", run("models"), re.MULTILINE)


def test_models_knows_a_community_model_by_its_file(tmp_path, monkeypatch):
    monkeypatch.setenv("SWINIR_CACHE", str(tmp_path))
    cached = tmp_path / "4x-SwinIR-S_Pretrain.pth"
    cached.write_bytes(b"nothing of the kind")
    assert describe_preset(PRESETS["pretrain-small-x4"]).parameters is None
    cached.write_bytes(to_bytes(network(upscale=4).state_dict()))
    row = describe_preset(PRESETS["pretrain-small-x4"])
    assert (row.weights, row.speed, row.parameters) == (
        "cached",
        "fast",
        sum(p.numel() for p in network(upscale=4).parameters()),
    )


@pytest.mark.parametrize(
    "name", ["classical-x2", "classical-x3", "classical-x8", "lightweight-x3", "real-x4", "real-large-x4", "jpeg-gray-10"]
)
def test_multiply_adds_are_those_that_pytorch_counts(name):
    config = replace(PRESETS[name].config, depths=(1, 2), num_heads=(2, 2), embed_dim=24)
    window = config.window_size
    assert mmacs_per_pixel(config) == round(multiply_adds(SwinIR(config), window, window) / window**2 / 1e6, 2)


def test_train_learns_resumes_and_exports(folders, tmp_path, monkeypatch, tiny_run):
    export, options = tmp_path / "out" / "tiny.safetensors", tiny_run
    validation = ("--val-lr", folders / "lr", "--val-hr", folders / "hr", "--export", export)
    assert "step 0 of 4" in run("train", folders / "hr", tmp_path / "run", *options, *validation)
    assert "step 4 of 4" in run("train", folders / "hr", tmp_path / "run", *options)
    small = read_checkpoint(export).config
    assert small.embed_dim == SMALL["embed_dim"]
    assert not list(export.parent.glob("*.part"))
    monkeypatch.setitem(PRESETS, "tiny-x2", Preset(name="tiny-x2", task="test", scale=2, config=small))
    assert starting_point("tiny-x2") == ("tiny-x2", None)
    assert starting_point(str(export)) == ("auto", str(export))
    again = ("train", folders / "hr", tmp_path / "again", *options)
    assert "step 0 of 4" in run(*again, "--start-from", export)
    for other in (again, ("train", folders / "lr", tmp_path / "again", *options, "--start-from", export)):
        with pytest.raises(ConfigError, match="was begun with other photographs or weights"):
            run(*other)
    assert "step 4 of 4" in run(*again, "--start-from", export)
    with pytest.raises(ConfigError, match="no-such does not exist"):
        run(*again, "--start-from", tmp_path / "no-such")
    with pytest.raises(ConfigError, match="not of this architecture"):
        run("train", folders / "hr", tmp_path / "other", *options, "--start-from", "lightweight-x2")


@pytest.fixture
def tiny_run(tmp_path, monkeypatch):
    """The options of a short run of a small network."""
    small = SwinIRConfig(**(SMALL | {"depths": (2,), "num_heads": (2,)}))
    monkeypatch.setattr("swinir.presets.preset", lambda name: Preset(name=name, task="test", scale=2, config=small))
    (tmp_path / "run.yaml").write_text("patch: 16\nbatch_size: 1\nsynthetic_pictures: 0\nrenew_steps: 1\n")
    return "--config", tmp_path / "run.yaml", "--steps", 4, "--every", 2, "--precision", "fp32", "--device", "cpu"


def test_train_of_few_pictures_at_once_passes_over_one_that_cannot_be_read(folders, tmp_path, tiny_run):
    whole = (folders / "hr" / "a.png").read_bytes()
    (folders / "hr" / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MediaError, match=r"a\.png: damaged PNG picture.*; take it out or mend it"):
        run("train", folders / "hr", tmp_path / "run", *tiny_run)
    with (tmp_path / "run.yaml").open("a") as settings:
        settings.write("pictures_at_once: 1\n")
    for step in (0, 4):
        said = run("train", folders / "hr", tmp_path / "run", *tiny_run)
        assert f"step {step} of 4" in said
        assert step or said.count("a.png: damaged PNG picture: image file is truncated; passed over") == 1


def test_train_goes_on_in_a_folder_among_the_photographs(folders, tmp_path, tiny_run):
    for step in (0, 4):
        said = run("train", folders / "hr", folders / "hr" / "run", *tiny_run)
        assert f"2 photographs, 0 validation pairs, cpu, step {step} of 4" in said
    with pytest.raises(ConfigError, match="hr holds the photographs; name a folder of its own"):
        run("train", folders / "hr", f"{folders}/lr/../hr", *tiny_run)


def test_train_without_the_compiler_that_it_was_told_to_use_says_so(folders, tmp_path):
    (tmp_path / "run.yaml").write_text("patch: 16\nbatch_size: 1\nsynthetic_pictures: 0\ncompile: true\n")
    command = [sys.executable, "-m", "jobs.cli", "train", folders / "hr", tmp_path / "run", "--config", tmp_path / "run.yaml"]
    env = os.environ | {"PATH": str(tmp_path), "CXX": "", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run([*map(str, command), "--device", "cpu"], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert re.fullmatch("error: the blocks cannot be compiled here: .*; train without compile\n", done.stderr)


@pytest.mark.parametrize(
    ("yaml", "arguments", "message"),
    [
        ("stepps: 3", (), "unknown key 'stepps' in .*; did you mean 'steps'"),
        ("degradation: {blurr_share: 1}", (), "unknown key 'blurr_share' in degradation; did you mean 'blur_share'"),
        ("model: [a]", (), r"model must be a name of `swinir models`, got \['a'\]"),
        ("- 1", (), "must hold a mapping of settings"),
        ("on: 1", (), "the key True is no text; quote it"),
        ("", ("--model", "jpeg-color-10"), r"keeps the size.*\(degradation\)"),
        ("", ("--model", "denoise-gray-25"), "pairs are RGB pictures"),
        ("", ("--model", "bicubic-x2"), "is not trained here"),
        ("", ("--val-lr", "x"), "belong together"),
        ("", ("--address", "auto"), "add --workers"),
    ],
)
def test_train_refuses_what_cannot_be(folders, tmp_path, yaml, arguments, message):
    (tmp_path / "run.yaml").write_text(yaml)
    with pytest.raises(ConfigError, match=message):
        run("train", folders / "hr", tmp_path / "run", "--config", tmp_path / "run.yaml", "--device", "cpu", *arguments)


def test_train_stopped_half_way_goes_on_from_that_step(folders, tmp_path):
    (tmp_path / "run.yaml").write_text("patch: 16\nbatch_size: 1\nsynthetic_pictures: 0\n")
    command = [sys.executable, "-m", "jobs.cli", "train", folders / "hr", tmp_path / "run", "--config", tmp_path / "run.yaml"]
    command = [*map(str, command), "--device", "cpu", "--steps", "100000", "--every", "100000"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert "step 0 of 100000" in running.stdout.readline()
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 130
    assert re.fullmatch(r"error: stopped at step (\d+) of 100000; the same command goes on from there\n", said)
    assert (tmp_path / "run/state.pt").exists()


@pytest.mark.parametrize(("lr", "hr", "message"), [(16, 64, "is not of the size of"), (7, 14, "too small to validate on")])
def test_train_refuses_pictures_that_cannot_be_validated_on(folders, tmp_path, lr, hr, message):
    for name, size in (("small", lr), ("large", hr)):
        (tmp_path / name).mkdir()
        Image.new("RGB", (size, size)).save(tmp_path / name / "a.png")
    validation = ("--val-lr", tmp_path / "small", "--val-hr", tmp_path / "large")
    with pytest.raises(ConfigError, match=message):
        run("train", folders / "hr", tmp_path / "run", "--device", "cpu", *validation)


def test_train_refuses_what_it_could_not_end_with(folders, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="lies in no folder, but below a file"):
        run("train", folders / "hr", tmp_path / "run", "--export", tmp_path / "file" / "x.safetensors")
    with pytest.raises(ConfigError, match="cannot write in"):
        run("train", folders / "hr", tmp_path / "file" / "run")
    for elsewhere in (["s3://bucket/run"], [tmp_path / "run", "--export", "s3://bucket/x.safetensors"]):
        with pytest.raises(ConfigError, match=r"s3://bucket/.* is a URL; name a local folder or file"):
            run("train", folders / "hr", *elsewhere)
    (tmp_path / "run").mkdir()
    with (
        lease(str(tmp_path / "run"), str(tmp_path / "run" / "state.pt")),
        pytest.raises(ConfigError, match="is being made by another running command"),
    ):
        run("train", folders / "hr", tmp_path / "run")


def test_train_needs_photographs(tmp_path):
    with pytest.raises(MediaError, match="none: "):
        run("train", tmp_path / "none", tmp_path / "run", "--device", "cpu")
    (tmp_path / "LICENSE").write_text("free")
    with pytest.raises(ConfigError, match="holds no pictures"):
        run("train", tmp_path, tmp_path / "run", "--device", "cpu")
