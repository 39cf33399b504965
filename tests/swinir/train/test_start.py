"""A run begins at a network's weights, or at its body where only the head differs."""

import dataclasses

import pytest
import torch
from tiny import network

from swinir.model import SwinIR
from swinir.train.start import start_as_pass_through, start_at


def model_of(**changes):
    model = SwinIR(dataclasses.replace(network().config, **changes))
    start_as_pass_through(model)
    return model


@pytest.fixture
def weights():
    return network().state_dict()


def body(state):
    return {name: value for name, value in state.items() if not name.startswith(("upsample", "conv_last", "conv_before"))}


def test_all_of_the_same_architecture(weights):
    model = model_of()
    start_at(model, weights)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("upscale", "upsampler"), [(1, ""), (3, "pixelshuffledirect"), (2, "pixelshuffle")])
def test_the_body_where_heads_differ(weights, upscale, upsampler):
    model = model_of(upscale=upscale, upsampler=upsampler)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start_at(model, weights)
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in body(weights).items())
    heads = before.keys() - body(before).keys()
    assert heads
    assert all(torch.equal(after[name], before[name]) for name in heads)


def test_the_same_size_begins_at_the_input(weights):
    model, x = model_of(upscale=1, upsampler=""), torch.rand(1, 3, 16, 24)
    start_at(model, weights)
    torch.testing.assert_close(model(x), x, rtol=0, atol=1e-6)


def test_twice_the_scale_begins_at_every_pixel_repeated(weights):
    model, smaller, x = model_of(upscale=4), network(), torch.rand(1, 3, 16, 24)
    start_at(model, weights)
    repeated = smaller(x).repeat_interleave(2, -1).repeat_interleave(2, -2)
    torch.testing.assert_close(model(x), repeated, rtol=0, atol=1e-5)


@pytest.mark.parametrize("changes", [{"embed_dim": 24}, {"depths": (2,), "num_heads": (2,)}, {"in_chans": 1, "upscale": 4}])
def test_another_body_is_refused(weights, changes):
    with pytest.raises(ValueError, match=r"not of this architecture: \S+ is \S+.* where \S+.* belongs$"):
        start_at(model_of(**changes), weights)
