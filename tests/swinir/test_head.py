"""The head as one convolution gives what its convolutions and shuffles give, at borders too, and only where they are linear."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import network

from swinir.head import LinearHead, with_linear_head


@settings(deadline=None, max_examples=12)
@given(
    scale=st.sampled_from([2, 3, 4, 8]), height=st.integers(2, 9), width=st.integers(2, 9), batch=st.integers(1, 2),
    chans=st.sampled_from([1, 3]),
)  # fmt: skip
def test_it_is_the_same_map(scale, height, width, batch, chans):
    slow = network(upsampler="pixelshuffle", upscale=scale, in_chans=chans)
    fast = with_linear_head(slow)
    assert isinstance(fast.upsample, LinearHead)
    x = torch.randn(batch, slow.conv_last.in_channels, height, width)
    with torch.inference_mode():
        truth = slow.conv_last(slow.upsample(x))
        assert truth.abs().max() > 0.01
        torch.testing.assert_close(fast.conv_last(fast.upsample(x)), truth, rtol=0, atol=2e-6)


def test_the_whole_network_with_it_and_the_network_itself_as_before():
    slow = network(upsampler="pixelshuffle", upscale=4)
    names, x = list(slow.state_dict()), torch.rand(1, 3, 19, 26)
    with torch.inference_mode():
        before, found = slow(x), with_linear_head(slow)(x)
        assert torch.equal(slow(x), before)
    torch.testing.assert_close(found, before, rtol=0, atol=1e-5)
    assert list(slow.state_dict()) == names


@pytest.mark.parametrize(("upsampler", "upscale"), [("pixelshuffledirect", 2), ("nearest+conv", 4), ("", 1)])
def test_other_heads_stay(upsampler, upscale):
    model = network(upsampler=upsampler, upscale=upscale)
    assert with_linear_head(model) is model
