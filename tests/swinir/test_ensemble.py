"""The self-ensemble is the mean over the 8 flips and transposes, exactly, in tiles and with tiles that are reused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import SMALL, as_tensor, network, picture

from swinir.checkpoint import to_bytes
from swinir.ensemble import SelfEnsemble
from swinir.model import SwinIR
from swinir.presets import baseline
from swinir.reuse import TileMemory
from swinir.spec import build_spec, load_spec
from swinir.upscaler import Upscaler

WAYS = [(flip, quarter) for flip in (False, True) for quarter in range(4)]  # all symmetries of a square, once each


@pytest.fixture
def small(tmp_path):
    """The small network's weights as a file."""
    path = tmp_path / "tiny.safetensors"
    path.write_bytes(to_bytes(network().state_dict()))
    return path


def by_hand(model, x: torch.Tensor) -> torch.Tensor:
    """The mean by quarter turns and mirrors, which are not how the ensemble gets there; float64."""
    outputs = []
    for flip, quarter in WAYS:
        turned = torch.rot90(x.flip(-1) if flip else x, quarter, (-2, -1))
        back = torch.rot90(model(turned), -quarter, (-2, -1))
        outputs.append((back.flip(-1) if flip else back).double())
    return torch.stack(outputs).mean(dim=0)


def test_it_is_the_mean_of_eight_outputs_turned_back():
    alone, x = network(), as_tensor(picture(24, 40))
    expected = by_hand(alone, x)
    out = SelfEnsemble(alone)(x)
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=2e-6)
    assert (alone(x).double() - expected).abs().max() > 1e-2  # the network alone is another


def test_what_turns_with_its_input_comes_back_bit_for_bit():
    x = torch.randn(2, 3, 11, 18)
    assert torch.equal(SelfEnsemble(baseline("nearest-x3"))(x), baseline("nearest-x3")(x))
    lr = picture(37, 50)
    for name in ("nearest-x2", "bicubic-x3", "identity"):
        assert np.array_equal(Upscaler(name, ensemble=8)(lr), Upscaler(name)(lr))


@pytest.mark.parametrize(
    "turn", [lambda x: x.flip(-1), lambda x: x.flip(-2), lambda x: x.mT], ids=["mirror", "flip", "transpose"]
)
def test_turning_the_input_turns_the_output(turn):
    ensemble, x = SelfEnsemble(network()), as_tensor(picture(24, 32))
    torch.testing.assert_close(turn(ensemble(x)), ensemble(turn(x)), rtol=0, atol=2e-6)


def test_in_tiles_each_tile_is_the_mean_of_its_eight(small):
    x = as_tensor(picture(90, 70))
    tiled = {"window": 8, "scale": 2, "precision": "fp32", "tile": 48}
    up = Upscaler("auto", weights=small, ensemble=8, precision="fp32", tile=48)
    assert up.name == "tiny+"

    class ByHand(torch.nn.Module):
        def forward(self, tile: torch.Tensor) -> torch.Tensor:
            return by_hand(network(), tile).float()

    other = Upscaler.from_network(ByHand(), **tiled)
    other._overlap = up._overlap
    torch.testing.assert_close(up.upscale(x), other.upscale(x), rtol=0, atol=1e-5)


def test_batches_and_reused_tiles_change_no_bit(small):
    spec = load_spec("auto", small, "fp32", 32, ensemble=8)
    up = Upscaler.from_spec(spec, batch=1)
    x = as_tensor(picture(70, 60))
    moved = x.clone()
    moved[..., :20, :20] = 0
    memory = TileMemory()
    for frame in (x, x, moved):
        assert torch.equal(up.upscale(frame, memory), up.upscale(frame))
    assert memory.num_reused > memory.num_computed / 2
    torch.testing.assert_close(Upscaler.from_spec(spec, batch=3).upscale(x), up.upscale(x), rtol=0, atol=2e-6)


def test_in_bf16_both_networks_are_ensembles(small):
    up = Upscaler("auto", weights=small, ensemble=8, precision="bf16")
    x = as_tensor(picture(24, 32))
    exact = by_hand(network(), x).float()
    assert (up.upscale(x) - exact).abs().max() < 0.05
    inside = [part.network for part in (up._network, up._exact)]
    assert all(isinstance(part, SwinIR) for part in inside)
    assert inside[0] is not inside[1]


def test_other_sizes_are_refused(small):
    for size in (0, 2, 4, 16):
        with pytest.raises(ValueError, match=f"ensemble must be 1, .* or 8, .* got {size}"):
            load_spec("auto", small, ensemble=size)
    spec = load_spec("auto", small, ensemble=8)
    assert spec.ensemble == 8
    assert build_spec(spec).config.upscale == SMALL["upscale"]
