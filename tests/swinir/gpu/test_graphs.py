"""Passes that come often are recorded, others not; on a GPU what is replayed is what was recorded."""

import pytest
import torch
from tiny import network
from torch import nn

from swinir.gpu.graphs import KEPT, SEEN, Recorded


class Tripled(nn.Module):
    def __init__(self):
        super().__init__()
        self.passes = 0

    def forward(self, x):
        self.passes += 1
        return 3 * x


class Recorder:
    """In place of CUDA's: a recording of an input's shape, which gives what the network would."""

    def __init__(self, failure=None):
        self.shapes, self.failure = [], failure

    def __call__(self, model, x):
        self.shapes.append(tuple(x.shape))
        if self.failure:
            raise self.failure
        shape = x.shape

        def run(x):
            assert x.shape == shape
            return 3 * x

        return run


def run(recorded, length, times=1):
    for _ in range(times):
        x = torch.rand(length)
        assert torch.equal(recorded(x), 3 * x)


def test_a_shape_is_recorded_once_it_came_often():
    model, recorder = Tripled(), Recorder()
    recorded = Recorded(model, recorder)
    for length in range(1, 50):
        run(recorded, length)
    assert not recorder.shapes
    run(recorded, 7, SEEN + 5)
    assert recorder.shapes == [(7,)]
    assert model.passes == 49 + SEEN - 1


def test_few_recordings_are_kept_and_those_in_use_stay():
    recorder = Recorder()
    recorded = Recorded(Tripled(), recorder)
    for length in range(1, KEPT + 1):
        run(recorded, length, SEEN + 1)
    run(recorded, 1)
    run(recorded, 9, SEEN + 1)  # in place of the second
    run(recorded, 1)
    assert recorder.shapes == [*((length,) for length in range(1, KEPT + 1)), (9,)]
    run(recorded, 2, SEEN + 1)  # shapes that push each other out are recorded more and more seldom
    assert recorder.shapes[-1] == (9,)
    run(recorded, 2, SEEN)
    assert recorder.shapes[-1] == (2,)


def test_where_nothing_can_be_recorded_the_network_goes_on(caplog):
    model, recorder = Tripled(), Recorder(RuntimeError("operation not permitted"))
    recorded = Recorded(model, recorder)
    run(recorded, 5, 3 * SEEN)
    assert len(recorder.shapes) == 1
    assert model.passes == 3 * SEEN
    assert "goes on without CUDA graphs" in caplog.text


def out_of_memory(*args):
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("failing", [out_of_memory, lambda model, x: out_of_memory])
def test_recordings_are_given_up_where_memory_runs_out_and_the_network_goes_on(failing):
    model, tried = Tripled(), []

    def record(*args):
        tried.append(args)
        return failing(*args)

    recorded = Recorded(model, record)
    run(recorded, 5, 3 * SEEN)
    assert (len(tried), model.passes) == (1, 3 * SEEN)
    assert not recorded._passes
    run(recorded, 5, 3 * SEEN)  # others may have given memory back
    assert len(tried) == 2


def test_what_is_forgotten_is_not_recorded_at_once():
    recorder = Recorder()
    recorded = Recorded(Tripled(), recorder)
    run(recorded, 5, SEEN + 1)
    recorded.forget()
    run(recorded, 5, 2 * SEEN)
    assert recorder.shapes == [(5,)]


@pytest.mark.gpu
def test_on_a_gpu_a_replay_gives_what_the_network_does():
    model = network().cuda().to(memory_format=torch.channels_last)
    recorded = Recorded(model)
    for index in range(SEEN + 3):
        with torch.inference_mode(index <= SEEN), torch.no_grad():  # recorded within, replayed within and outside
            x = torch.rand(1, 3, 64, 96, device="cuda")
            torch.testing.assert_close(recorded(x), model(x), rtol=0, atol=1e-4)
    assert recorded._passes
