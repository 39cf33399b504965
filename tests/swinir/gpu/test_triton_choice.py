"""A GPU uses the Triton kernels if they agree with PyTorch and win, in the launches that are the fastest there."""

import json
import logging

import pytest
import torch
from tiny import network

from swinir.gpu import choice
from swinir.gpu.choice import Choice, by_triton
from swinir.gpu.graphs import Recorded
from swinir.gpu.ordered import DIRECT_LAUNCHES
from swinir.gpu.packing import LAUNCHES

pytest.importorskip("triton", reason="Triton is for Linux")


class Block:
    """In place of a block's parameters: remembers how it was launched."""

    def __init__(self):
        self.ran = None

    def attend(self, x, out, launch, *, whole):
        self.ran = ("direct" if launch.direct else "whole" if whole else "attention", launch)

    def mix(self, x, launch):
        self.ran = ("mlp", launch)


class Trial:
    """A network in float32, one with its body rounded, and a cache in which nothing was found yet."""

    def __init__(self, folder, monkeypatch):
        self.network, self.rounded, self.folder = network(), network().set_body_dtype(torch.bfloat16), folder
        self.block, self.timed, self.monkeypatch = Block(), 0, monkeypatch

    def run(
        self, attention=(1, 1, 1, 1), mlp=(1, 1, 1, 1), whole=(99, 99, 99, 99), direct=None,
        ratio=0.5, stand_in=None, graphs=True,
    ):  # fmt: skip
        """What is chosen where the launches take such times, or fail, and all of it ``ratio`` of PyTorch's time.

        ``direct`` is None for a network which that kernel is not for. ``stand_in`` is what the kernels compute, else the right
        thing.
        """
        of_kernels = {"attention": attention, "mlp": mlp, "whole": whole}
        times = {kernel: dict(zip(LAUNCHES, each, strict=True)) for kernel, each in of_kernels.items()}
        times["direct"] = dict(zip(DIRECT_LAUNCHES, direct or (), strict=direct is not None))
        of_networks = iter([ratio, 1.0])

        def made(model, dtype, *launches):
            found = network().set_body_dtype(torch.bfloat16)
            found.groups, found.width, found.launches = [([self.block], None)], 16, launches
            if stand_in:
                found.forward = stand_in
            return found

        def milliseconds(run):
            self.block.ran, self.timed = None, self.timed + 1
            run()
            if self.block.ran is None:
                return next(of_networks)
            kernel, launch = self.block.ran
            if isinstance(times[kernel][launch], Exception):
                raise times[kernel][launch]
            return times[kernel][launch]

        def recorded(model, x):
            if not graphs:
                raise RuntimeError("operation not permitted when stream is capturing")
            return model

        self.monkeypatch.setattr(choice, "TIMED_SIZE", 16)
        self.monkeypatch.setattr(choice, "CHECKED_SIZE", (72, 104))
        self.monkeypatch.setattr(choice, "fits", lambda config: direct is not None)
        self.monkeypatch.setattr(choice, "milliseconds", milliseconds)
        self.monkeypatch.setattr(choice, "recorded", lambda model, x: recorded(model, x) and (lambda x: model(x)))
        self.monkeypatch.setattr(choice, "TritonSwinIR", made)
        chosen = by_triton(self.network, self.rounded, self.folder)
        if chosen is self.rounded:
            return None
        faster = chosen.network if isinstance(chosen, Recorded) else chosen
        return Choice(*faster.launches, isinstance(chosen, Recorded))

    @property
    def kept(self):
        return [json.loads(path.read_text()) for path in self.folder.rglob("*.json")]


@pytest.fixture
def trial(tmp_path, monkeypatch):
    return Trial(tmp_path, monkeypatch)


BEST = Choice(LAUNCHES[1], LAUNCHES[3], True)


def test_the_fastest_launches_are_used_if_they_win_and_the_choice_is_kept(trial):
    assert trial.run((5, 4, 6, 7), (9, 8, 7, 6)) == BEST
    timed = trial.timed
    assert trial.run((1, 4, 6, 7), (1, 8, 7, 6)) == BEST
    assert trial.timed == timed
    assert trial.kept == [json.loads(json.dumps(BEST))]


def test_one_kernel_instead_of_two_where_it_takes_less(trial):
    assert trial.run((5, 4, 6, 7), (9, 8, 7, 6), (9, 10, 11, 12)) == Choice(LAUNCHES[0], None, True)
    assert trial.run() == Choice(LAUNCHES[0], None, True)


@pytest.mark.parametrize("slower", [3, RuntimeError("out of resource: registers")])
def test_the_direct_kernel_where_it_is_for_such_a_network_and_takes_the_least(trial, slower):
    direct = Choice(DIRECT_LAUNCHES[1], None, True)
    assert trial.run(whole=(4, 3, 5, 6), attention=(5, 5, 5, 5), direct=(slower, 2, 4)) == direct
    assert trial.run() == direct  # as it was kept
    assert trial.kept == [json.loads(json.dumps(direct))]


def test_other_kernels_where_they_take_less_than_the_direct_one(trial):
    assert trial.run((5, 4, 6, 7), (9, 8, 7, 6), direct=(12, 11, 13)) == BEST


def test_the_other_kernel_for_a_whole_block_where_it_takes_less_than_the_direct_one(trial):
    assert trial.run((5, 4, 6, 7), (9, 8, 7, 6), (4, 3, 5, 6), direct=(8, 7, 6)) == Choice(LAUNCHES[1], None, True)


def test_kernels_that_win_by_nothing_are_left_out(trial):
    assert trial.run(ratio=0.97) is None
    assert trial.kept == [None]
    assert trial.run(ratio=0.5) is None  # as it was found the first time


def test_other_kernels_are_measured_anew(trial, monkeypatch):
    assert trial.run(ratio=2.0) is None
    monkeypatch.setattr(choice, "SOURCES", ("kernels.py",))
    assert trial.run((5, 4, 6, 7), (9, 8, 7, 6)) == BEST


def test_a_launch_that_does_not_fit_the_gpu_is_left_out(trial):
    full = RuntimeError("out of resource: shared memory")
    assert trial.run((5, 4, full, full), (full, 8, 7, 6)) == BEST


def test_what_a_lack_of_memory_said_is_not_kept(trial):
    assert trial.run(attention=(5, torch.OutOfMemoryError("CUDA out of memory"), 6, 7)) is None
    assert not trial.kept
    assert trial.run((5, 4, 6, 7), (9, 8, 7, 6)) == BEST


def test_where_nothing_can_be_recorded_the_kernels_go_without(trial, caplog):
    assert trial.run((5, 4, 6, 7), (9, 8, 7, 6), graphs=False) == BEST._replace(graphs=False)
    assert "goes on without CUDA graphs: operation not permitted" in caplog.text
    assert trial.run(graphs=True) == BEST._replace(graphs=False)  # not tried again


@pytest.mark.parametrize("text", ["", "[[4, 1", "5", "[[4, 1], [8, 2, 2], true]", "{}x"])
def test_a_damaged_choice_is_found_anew(trial, text):
    trial.run(ratio=2.0)
    for path in trial.folder.rglob("*.json"):
        path.write_text(text)
    assert trial.run((5, 4, 6, 7), (9, 8, 7, 6)) == BEST
    assert trial.kept == [json.loads(json.dumps(BEST))]


def test_a_cache_that_cannot_be_written_is_no_error(trial):
    trial.folder = trial.folder / "file"
    trial.folder.write_text("")
    assert trial.run((5, 4, 6, 7), (9, 8, 7, 6)) == BEST


def without_position_bias():
    model = network()
    for name, parameter in model.named_parameters():
        if name.endswith("relative_position_bias_table"):
            parameter.zero_()
    return model.set_body_dtype(torch.bfloat16)


@pytest.mark.parametrize("wrong", [lambda x: torch.full((1, 3, 144, 208), torch.nan), without_position_bias()])
def test_kernels_that_are_wrong_are_left_out(trial, caplog, wrong):
    with caplog.at_level(logging.WARNING):
        assert trial.run(stand_in=lambda x: wrong(x)) is None
    assert "without its Triton kernels: they differ" in caplog.text
    assert not trial.kept


def test_kernels_that_fail_are_left_out(trial, caplog):
    def fail(x):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with caplog.at_level(logging.WARNING):
        assert trial.run(stand_in=fail) is None
    assert "without its Triton kernels: CUDA out of memory" in caplog.text
    assert not trial.kept
