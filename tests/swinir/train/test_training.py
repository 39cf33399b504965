"""Training learns, resumes to the step, and keeps runs apart."""

import dataclasses
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from compilers import needs_kernel
from PIL import Image
from ranks import train_together
from tiny import SHORT_RUN, SMALL, picture

from swinir.cpu.gradients import TrainableSwinIR, trainable
from swinir.model import SwinIRConfig
from swinir.train.curves import plot_curves, read_log
from swinir.train.degrade import Degradation
from swinir.train.loop import Trainer
from swinir.train.pairs import reduced_pair
from swinir.train.patches import training_patches
from swinir.train.recipe import learning_rate, same_run

CPU = torch.device("cpu")


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_the_loss_falls(patches, tmp_path, optimizer):
    trainer = Trainer(dataclasses.replace(SHORT_RUN, steps=60, optimizer=optimizer), patches, tmp_path, CPU)
    losses = [trainer.train_step() for _ in range(60)]
    assert np.mean(losses[-15:]) < 0.95 * np.mean(losses[:15])


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
@pytest.mark.parametrize("way", [None, trainable])
def test_a_resumed_run_ends_where_an_unbroken_one_does(patches, tmp_path, way, optimizer):
    config = dataclasses.replace(SHORT_RUN, optimizer=optimizer)
    validation = [reduced_pair(picture(40, 48, 9), 2)]
    unbroken = Trainer(config, patches, tmp_path / "one", CPU, way=way)
    unbroken.run(validation, lambda row: None, every=3)
    broken = Trainer(config, patches, tmp_path / "two", CPU, way=way)
    for _ in range(3):
        broken.train_step()
    broken.save()
    broken.train_step()  # lost with the process
    resumed = Trainer(config, patches, tmp_path / "two", CPU, way=way)
    assert resumed.step == 3
    resumed.run(validation, lambda row: None, every=3)
    for name, value in unbroken.average.state_dict().items():
        assert torch.equal(value, resumed.average.state_dict()[name]), name
    rows = list(read_log(tmp_path / "one"))
    assert [row["step"] for row in rows] == [3, 6]
    assert all(row["patches_per_second"] > 0 for row in rows)
    assert (tmp_path / "one" / "curve.png").exists()


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_a_state_from_a_gpu_is_gone_on_with(patches, tmp_path, optimizer):
    """Where the rate was a tensor, Adam a kernel for all, and axes lay in memory in another order."""
    config = dataclasses.replace(SHORT_RUN, optimizer=optimizer)
    trainer = Trainer(config, patches, tmp_path, CPU)
    trainer.train_step()
    trainer.save()
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    for saved in state["optimizer"]:
        for group in saved["param_groups"]:
            group["lr"] = torch.tensor(0.5)
            group.update({name: True for name in ("fused", "capturable") if name in group})
        for kept in saved["state"].values():
            for name, value in kept.items():
                kept[name] = value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value
    torch.save(state, tmp_path / "state.pt")
    resumed = Trainer(config, patches, tmp_path, CPU)
    for parameter, kept in resumed.optimizers[-1].state.items():
        assert kept["exp_avg"].stride() == parameter.stride()
    assert [trainer.train_step() for _ in range(2)] == [resumed.train_step() for _ in range(2)]


def test_a_run_that_is_told_to_stop_loses_no_step(patches, tmp_path):
    stopped = Trainer(SHORT_RUN, patches, tmp_path, CPU)
    stopped.run([], lambda row: None, every=100, stop=lambda: stopped.step == 2)
    assert Trainer(SHORT_RUN, patches, tmp_path, CPU).step == stopped.step == 2


def test_a_run_goes_on_where_steps_are_computed_another_way(patches, tmp_path):
    trainer = Trainer(SHORT_RUN, patches, tmp_path, CPU)
    trainer.train_step()
    trainer.save()
    assert Trainer(dataclasses.replace(SHORT_RUN, precision="bf16"), patches, tmp_path, CPU).step == 1
    with pytest.raises(ValueError, match="another training configuration"):
        Trainer(dataclasses.replace(SHORT_RUN, plain_weight=1.0), patches, tmp_path, CPU)
    theirs = dataclasses.asdict(SHORT_RUN)
    assert same_run(json.dumps(theirs), SHORT_RUN)
    assert not same_run(json.dumps(theirs | {"what_a_later_version_has": 1}), SHORT_RUN)


ALONE = """
import sys

class Without:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] in {"safetensors", "platformdirs", "filelock", "ray", "av", "pyarrow", "pydantic", "yaml"}:
            raise ImportError(name)

sys.meta_path.insert(0, Without())
import swinir.train.loop
"""


def test_the_loop_needs_torch_numpy_and_pillow_alone():
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_plain_colours_stay_where_they_are_weighed(patches, tmp_path):
    """Steps from the same start: with them weighed, what a plain colour turns into is nearer to it."""
    left = []
    for weight in (0.0, 0.3):
        config = dataclasses.replace(SHORT_RUN, plain_weight=weight, learning_rate=2e-4, steps=60)
        trainer = Trainer(config, patches, tmp_path / str(weight), CPU)
        for _ in range(60):
            trainer.train_step()
        shades = torch.tensor([0.1, 0.5, 0.9])
        colours = torch.cartesian_prod(shades, shades, shades).view(27, 3, 1, 1)
        with torch.no_grad():
            shown = trainer.model(colours.expand(-1, -1, 32, 32).contiguous())
        left.append(float((shown - colours)[..., 16:-16, 16:-16].abs().mean()))
    assert left[1] < 0.75 * left[0]


@needs_kernel
def test_the_compiled_kernel_takes_the_same_steps(patches, tmp_path):
    plain, faster = (Trainer(SHORT_RUN, patches, tmp_path / str(way), CPU, way=way) for way in (None, trainable))
    assert isinstance(faster._network, TrainableSwinIR)
    losses = [[trainer.train_step() for _ in range(3)] for trainer in (plain, faster)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)


def test_a_state_from_before_there_were_two_optimizers_is_gone_on_with(patches, tmp_path):
    trainer = Trainer(SHORT_RUN, patches, tmp_path, CPU)
    trainer.train_step()
    trainer.save()
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    (state["optimizer"],) = state["optimizer"]
    torch.save(state, tmp_path / "state.pt")
    resumed = Trainer(SHORT_RUN, patches, tmp_path, CPU)
    assert [trainer.train_step() for _ in range(2)] == [resumed.train_step() for _ in range(2)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # PyTorch's compiler warns of itself
def test_compiled_blocks_take_the_same_steps(patches, tmp_path):
    plain, compiled = (
        Trainer(dataclasses.replace(SHORT_RUN, compile=flag), patches, tmp_path / str(flag), CPU) for flag in (False, True)
    )
    losses = [[trainer.train_step() for _ in range(2)] for trainer in (plain, compiled)]
    assert losses[1] == pytest.approx(losses[0], abs=0.01)
    for name, value in plain.average.state_dict().items():
        torch.testing.assert_close(compiled.average.state_dict()[name], value, atol=1e-3, rtol=0)


@pytest.mark.parametrize("way", [None, trainable])
def test_two_ranks_take_the_steps_of_one(patches, tmp_path, way):
    config = dataclasses.replace(SHORT_RUN, steps=3, batch_size=3)  # one rank has twice the patches of the other
    alone = Trainer(config, patches, tmp_path / "alone", CPU, way=way)
    start = {name: value.clone() for name, value in alone.model.state_dict().items()}
    alone.run([], lambda row: None)
    first, second = train_together(config, tmp_path / "together", 2, way)
    assert all(torch.equal(first[name], second[name]) for name in first)
    for name, value in alone.model.state_dict().items():
        assert (value - first[name]).abs().max() < 1e-6, name
    assert (start["conv_first.weight"] - first["conv_first.weight"]).abs().max() > 1e-3


def test_two_ranks_go_on_with_a_run_of_one(patches, tmp_path):
    config = dataclasses.replace(SHORT_RUN, steps=3)
    trainer = Trainer(config, patches, tmp_path / "run", CPU)
    for _ in range(2):
        trainer.train_step()
    trainer.save()
    trainer.train_step()
    for weights in train_together(config, tmp_path / "run", 2):
        assert weights.pop("step") == 3
        for name, value in weights.items():
            assert (value - trainer.model.state_dict()[name]).abs().max() < 1e-6, name


def test_a_batch_is_shared_out_among_the_ranks(patches):
    whole = patches.batch(4, SHORT_RUN)
    for rank in range(2):
        assert torch.equal(patches.batch(4, SHORT_RUN, rank, 2)[1], whole[1][rank::2])


def test_a_damaged_state_is_named(patches, tmp_path):
    Trainer(SHORT_RUN, patches, tmp_path, CPU).save()
    (tmp_path / "state.pt").write_bytes((tmp_path / "state.pt").read_bytes()[:-5000])
    with pytest.raises(ValueError, match=r"state\.pt is damaged; remove it to begin anew$"):
        Trainer(SHORT_RUN, patches, tmp_path, CPU)


def test_weights_of_another_architecture_are_refused(patches, tmp_path):
    with pytest.raises(ValueError, match="not of this architecture"):
        Trainer(SHORT_RUN, patches, tmp_path, CPU, {"conv_first.weight": torch.zeros(3)})


def test_another_configuration_in_the_same_folder_is_refused(patches, tmp_path):
    Trainer(SHORT_RUN, patches, tmp_path, CPU).save()
    with pytest.raises(ValueError, match="another training configuration; choose another folder"):
        Trainer(dataclasses.replace(SHORT_RUN, seed=1), patches, tmp_path, CPU)


def test_a_run_that_began_with_other_photographs_or_weights_is_refused(patches, tmp_path):
    Trainer(SHORT_RUN, patches, tmp_path, CPU, origin="these").save()
    Trainer(SHORT_RUN, patches, tmp_path, CPU, origin="these")
    with pytest.raises(ValueError, match="was begun with other photographs or weights; give those, or choose another folder"):
        Trainer(SHORT_RUN, patches, tmp_path, CPU, origin="those")


def test_the_log_of_a_run_that_was_killed_has_every_step_once(patches, tmp_path):
    trainer = Trainer(SHORT_RUN, patches, tmp_path, CPU)
    trainer.run([], lambda row: None, every=1, stop=lambda: trainer.step == 2)
    log = tmp_path / "log.jsonl"
    rows = log.read_text()
    log.write_text(rows + json.dumps({"step": 3, "loss": 9.0}) + '\n{"step": 4, "lo')  # not saved any more; cut short
    resumed = Trainer(SHORT_RUN, patches, tmp_path, CPU)
    assert log.read_text() == rows
    resumed.run([], lambda row: None, every=1)
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [1, *range(3, SHORT_RUN.steps + 1)]
    (tmp_path / "state.pt").unlink()
    Trainer(SHORT_RUN, patches, tmp_path, CPU)
    assert log.read_text() == ""


def test_a_state_from_before_a_setting_was_there_goes_on_under_its_default(patches, tmp_path):
    trainer = Trainer(SHORT_RUN, patches, tmp_path, CPU)
    trainer.train_step()
    trainer.save()
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    settings = json.loads(state["config"])
    del settings["schedule"], settings["milestones"], state["origin"]
    torch.save(state | {"config": json.dumps(settings)}, tmp_path / "state.pt")
    assert Trainer(SHORT_RUN, patches, tmp_path, CPU, origin="these").step == 1
    with pytest.raises(ValueError, match="another training configuration"):
        Trainer(dataclasses.replace(SHORT_RUN, schedule="multistep"), patches, tmp_path, CPU)


def test_the_learning_rate_is_halved_at_each_milestone():
    config = dataclasses.replace(SHORT_RUN, steps=500_000, schedule="multistep", learning_rate=2e-4, warmup_steps=0)
    steps = (0, 249_999, 250_000, 399_999, 400_000, 450_000, 475_000, 499_999)
    rates = [learning_rate(step, config) / 2e-4 for step in steps]
    assert rates == [1, 1, 1 / 2, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 16]


def test_the_cosine_falls_from_the_end_of_the_warm_up_to_a_hundredth():
    config = dataclasses.replace(SHORT_RUN, steps=102, warmup_steps=2, learning_rate=1.0)
    assert [round(learning_rate(step, config), 6) for step in (0, 1, 2, 52, 102)] == [0.5, 1, 1, 0.505, 0.01]


def test_every_curve_is_drawn_where_its_values_lie(tmp_path):
    rows = [{"step": 1, "loss": 9, "psnr": 20, "patches_per_second": 5}, {"step": 2, "loss": 3, "psnr": 30}]
    plot_curves(rows, tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as curve:
        pixels = np.asarray(curve.convert("RGB")).astype(int)
    red = np.argwhere((pixels[:, 80:820] == (255, 0, 0)).all(axis=2))
    blue = np.argwhere((pixels[:, 80:820] == (0, 0, 255)).all(axis=2))
    assert red[red[:, 1].argmin(), 0] < red[red[:, 1].argmax(), 0]  # the loss falls, downwards
    assert blue[blue[:, 1].argmin(), 0] > blue[blue[:, 1].argmax(), 0]
    assert blue[:, 0].max() < red[:, 0].min()


def test_the_start_passes_the_image_through(patches, tmp_path):
    trainer = Trainer(SHORT_RUN, patches, tmp_path, CPU)
    x = torch.full((1, 3, 16, 16), 0.4)
    with torch.inference_mode():
        y = trainer.average(x)
    assert (y - 0.4).abs().max() < 0.1


def test_restoration_at_the_same_size_begins_at_its_input(tmp_path):
    model = SwinIRConfig(**(SMALL | {"depths": (2,), "num_heads": (2,), "upscale": 1, "upsampler": ""}))
    config = dataclasses.replace(SHORT_RUN, model=model, degradation=Degradation(noise_share=1.0, video_share=0.0), crops=1)
    patches = training_patches([picture(64, 64, 0)], dataclasses.replace(config, synthetic_pictures=0))
    trainer = Trainer(config, patches, tmp_path, CPU)
    x = torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        assert (trainer.average(x) - x).abs().max() < 1e-6
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    for _ in range(2):
        trainer.train_step()
    assert not torch.equal(trainer.model.state_dict()["conv_after_body.weight"], before["conv_after_body.weight"])


def test_a_log_cut_short_by_a_kill_is_read(tmp_path):
    (tmp_path / "log.jsonl").write_text(json.dumps({"step": 1}) + '\n{"step": 2, "lo')
    assert list(read_log(tmp_path)) == [{"step": 1}]


def test_a_run_can_begin_at_given_weights(patches, tmp_path):
    first = Trainer(dataclasses.replace(SHORT_RUN, seed=5), patches, tmp_path / "first", CPU)
    first.train_step()
    second = Trainer(SHORT_RUN, patches, tmp_path / "second", CPU, first.average.state_dict())
    assert second.step == 0
    for name, value in first.average.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name])


def test_settings_that_name_nothing_are_refused():
    for change in (
        {"loss": "l3"}, {"precision": "fp16"}, {"schedule": "linear"}, {"milestones": [0.5, 400_000]}, {"milestones": 0.5},
        {"learning_rate": "fast"}, {"learning_rate": -1}, {"learning_rate": 0}, {"ema_decay": 2}, {"synthetic_share": 1.5},
        {"plain_weight": "x"}, {"gradient_clip": math.inf}, {"compile": "no"}, {"degradation": 5},
        {"degradation": {"quality": [150, 200]}}, {"degradation": {"noise_codes": [1, math.inf]}},
        {"degradation": {"blur_sigma": 1}},
        {"degradation": {"still_share": "often"}},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="must be"):
            dataclasses.replace(SHORT_RUN, **change)


def test_a_number_may_be_what_yaml_takes_for_text():
    assert dataclasses.replace(SHORT_RUN, learning_rate="1e-3", gradient_clip=None).learning_rate == 0.001


def test_a_run_that_diverges_ends_and_keeps_its_last_state(patches, tmp_path):
    trainer = Trainer(SHORT_RUN, patches, tmp_path, CPU)
    trainer.save()
    with torch.no_grad():
        trainer.model.conv_first.weight.fill_(math.inf)
    with pytest.raises(FloatingPointError, match="not finite at step 0; train with a lower learning rate"):
        trainer.run([], lambda row: None)
    assert Trainer(SHORT_RUN, patches, tmp_path, CPU).model.conv_first.weight.isfinite().all()


@pytest.mark.parametrize("content", [b"hello", {"model": {}}])
def test_a_state_that_is_none_is_named(patches, tmp_path, content):
    if isinstance(content, bytes):
        (tmp_path / "state.pt").write_bytes(content)
    else:
        torch.save(content, tmp_path / "state.pt")
    with pytest.raises(ValueError, match=r"state\.pt is (damaged; remove it|no state of a training run)"):
        Trainer(SHORT_RUN, patches, tmp_path, CPU)
