"""Patches follow from seed and step; with few of many pictures in memory, all come round."""

import dataclasses
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import SMALL, picture

from swinir.model import SwinIRConfig
from swinir.train.degrade import Degradation
from swinir.train.loop import Trainer
from swinir.train.pairs import reduced_pair
from swinir.train.patches import AHEAD, Patches, RenewedPatches, chosen_pictures, in_background, training_patches
from swinir.train.recipe import TrainConfig

CPU = torch.device("cpu")
CONFIG = TrainConfig(
    model=SwinIRConfig(**(SMALL | {"depths": (2,), "num_heads": (2,)})),
    steps=6, batch_size=2, patch=16, warmup_steps=2, precision="fp32", synthetic_pictures=0,
)  # fmt: skip
FEW = dataclasses.replace(CONFIG, pictures_at_once=2, renew_steps=2)


class Shelf(Sequence):
    """Five pictures that note who takes them."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.threads: set[int] = set()

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int):
        self.taken.append(index)
        self.threads.add(threading.get_ident())
        return picture(96, 120, index)


def test_a_batch_depends_on_the_seed_and_the_step_alone():
    patches = Patches([reduced_pair(picture(96, 120, seed), 2) for seed in range(3)], 2, CONFIG.patch)
    first, again, other = patches.batch(4, CONFIG), patches.batch(4, CONFIG), patches.batch(5, CONFIG)
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])
    assert first[0].shape == (2, 3, 16, 16)
    assert first[1].shape == (2, 3, 32, 32)


def test_synthetic_pictures_give_their_share_of_the_patches():
    pictures = [picture(96, 120, seed) for seed in range(3)]
    patches = Patches([reduced_pair(each, 2) for each in pictures], 2, 16, num_synthetic=1, synthetic_share=0.25)
    share = np.diff(patches.cumulative, prepend=0)[patches.places[:, 0] == 2].sum()
    assert abs(share - 0.25) < 1e-9


def test_pictures_too_small_for_a_patch_are_refused():
    with pytest.raises(ValueError, match="add larger ones"):
        Patches([reduced_pair(picture(24, 24, 0), 2)], 2, 24)


def test_photographs_too_small_for_a_patch_are_counted():
    photographs = [picture(96, 120, 0), picture(30, 120, 1), picture(120, 31, 2), picture(32, 32, 3)]
    assert training_patches(photographs, CONFIG).num_too_small(0) == 2
    turns = training_patches(photographs, dataclasses.replace(FEW, pictures_at_once=4))
    assert turns.num_too_small(0) == 2


@pytest.mark.parametrize("height", [0, 1])
@pytest.mark.parametrize("degradation", [None, Degradation(video_share=0.0)])
def test_a_picture_that_cannot_be_reduced_gives_nothing(height, degradation):
    config = dataclasses.replace(CONFIG, degradation=degradation, crops=1)
    patches = training_patches([picture(96, 120, 0), np.zeros((height, height, 3), np.uint8)], config)
    assert len(patches.pairs_at(0)) == 1
    assert patches.num_too_small(0) == height  # what has no pixels was not read


@given(at_once=st.integers(1, 7), extra=st.integers(0, 20), seed=st.integers(0, 3))
def test_every_picture_has_been_shown_as_often_but_for_one(at_once, extra, seed):
    num_pictures = at_once + extra
    shown = [index for turn in range(12) for index in chosen_pictures(turn, at_once, num_pictures, seed)]
    counts = np.bincount(shown, minlength=num_pictures)
    assert counts.sum() == 12 * at_once
    assert counts.max() - counts.min() <= 1


def test_a_few_pictures_are_read_at_a_time_ahead_of_their_use():
    shelf = Shelf()
    patches = training_patches(shelf, FEW)
    assert shelf.taken == []
    patches.batch(0, FEW)
    until = time.monotonic() + 30
    while len(shelf.taken) < 4 and time.monotonic() < until:  # the second turn is made ready during the first
        time.sleep(0.01)
    first = chosen_pictures(0, 2, 5, 0) + chosen_pictures(1, 2, 5, 0)
    assert shelf.taken == first
    patches.batch(2, FEW)  # the third follows
    patches.batch(4, FEW)
    assert shelf.taken == first + chosen_pictures(2, 2, 5, 0)  # and none after the last step
    patches.pairs_at(6)  # a run that is over shows what it ended with
    assert len(shelf.taken) == 6
    assert threading.get_ident() not in shelf.threads


@pytest.mark.parametrize("renew_steps", [1, 2, 5])
def test_steps_made_at_once_make_no_turn_twice(renew_steps):
    config = dataclasses.replace(FEW, steps=30, renew_steps=renew_steps)
    shelf = Shelf()
    patches = RenewedPatches(shelf, config)
    ready = {}
    for step in range(config.steps):
        for near in range(step, min(step + 1 + AHEAD, config.steps)):
            if near not in ready:
                ready[near] = in_background(partial(patches.batch, near, config))
        ready[step].result()
    assert len(shelf.taken) == 2 * (config.steps // renew_steps)
    assert len(patches._ready) <= AHEAD // renew_steps + 2


def test_turns_draw_and_degrade_in_their_own_ways():
    config = dataclasses.replace(
        FEW, pictures_at_once=9, degradation=Degradation(video_share=0.0), crops=1, synthetic_pictures=1
    )
    patches = training_patches([picture(96, 120, 0)], config)
    first, second, again = (patches.pairs_at(step) for step in (0, 2, 1))
    assert len(first) == 2
    for a, b, c in zip(first, second, again, strict=True):
        assert not np.array_equal(a[0], b[0])
        assert np.array_equal(a[0], c[0])


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_run_of_few_pictures_goes_on_to_the_same_weights(tmp_path, stop):
    unbroken = Trainer(FEW, RenewedPatches(Shelf(), FEW), tmp_path / "one", CPU)
    unbroken.run([], lambda row: None)
    broken = Trainer(FEW, RenewedPatches(Shelf(), FEW), tmp_path / "two", CPU)
    for _ in range(stop):
        broken.train_step()
    broken.save()
    resumed = Trainer(FEW, RenewedPatches(Shelf(), FEW), tmp_path / "two", CPU)
    resumed.run([], lambda row: None)
    for name, value in unbroken.average.state_dict().items():
        assert torch.equal(value, resumed.average.state_dict()[name]), name


def test_a_turn_without_a_patch_shows_the_pictures_of_the_next():
    config = dataclasses.replace(FEW, pictures_at_once=1, renew_steps=1)
    small = [picture(20, 20, index) for index in range(4)]
    for place in range(5):
        patches = training_patches([*small[:place], picture(96, 120, 9), *small[place:]], config)
        for step in range(config.steps):
            assert [hr.shape for _, hr in patches.pairs_at(step)] == [(96, 120, 3)]


def test_pictures_without_a_patch_say_so():
    patches = training_patches([picture(20, 20, 0)], dataclasses.replace(FEW, pictures_at_once=1))
    with pytest.raises(ValueError, match="add larger ones"):
        patches.batch(0, FEW)


@pytest.mark.parametrize("value", [0, -1, 2.5, True, "x", float("nan")])
@pytest.mark.parametrize("name", ["pictures_at_once", "renew_steps", "steps", "crops"])
def test_what_counts_something_is_a_whole_number(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a whole number of 1 or more, got "):
        dataclasses.replace(CONFIG, **{name: value})


def test_a_thread_that_makes_patches_ready_holds_no_exit_up():
    code = """
import threading, time
from swinir.train.patches import in_background
in_background(lambda: time.sleep(60))
assert threading.active_count() == 2
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
