"""Between fidelity and invention lie the weights in between, exactly, and what cannot be blended is refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import SMALL, picture

from swinir.checkpoint import WeightsError, build_network, random_state, to_bytes, weights_digest
from swinir.model import SwinIRConfig
from swinir.presets import PRESETS, Preset, PublishedFile
from swinir.spec import load_spec
from swinir.strength import FIDELITY, load_blended
from swinir.upscaler import Upscaler

CONFIG = SwinIRConfig(**SMALL)
GAN, L1 = random_state(CONFIG, seed=1), random_state(CONFIG, seed=2)


@pytest.fixture
def files(tmp_path) -> tuple[Path, Path]:
    """The model's own weights, and those for fidelity."""
    for name, state in (("gan", GAN), ("l1", L1)):
        (tmp_path / f"{name}.safetensors").write_bytes(to_bytes(state))
    return tmp_path / "gan.safetensors", tmp_path / "l1.safetensors"


def test_a_strength_is_the_mean_of_the_weights_and_not_of_the_pictures(files):
    gan, l1 = files
    by_hand = {name: 0.75 * L1[name].double() + 0.25 * GAN[name].double() for name in GAN}
    blended = load_blended("auto", gan, l1, 0.25)
    assert blended.config == CONFIG
    for name, value in blended.state.items():
        torch.testing.assert_close(value.double(), by_hand[name], rtol=0, atol=1e-7)
    lr = picture(24, 32)
    up = Upscaler("auto", weights=gan, weights_fidelity=l1, strength=0.25, precision="fp32")
    network = build_network(CONFIG, {name: value.float() for name, value in by_hand.items()})
    assert np.array_equal(up(lr), Upscaler.from_network(network, scale=2, precision="fp32")(lr))
    ends = [Upscaler("auto", weights=path, precision="fp32")(lr).astype(float) for path in (l1, gan)]
    assert np.abs(up(lr) - (0.75 * ends[0] + 0.25 * ends[1])).max() > 2


def test_the_ends_are_the_files_and_every_strength_is_a_model_of_its_own(files):
    gan, l1 = files
    digests = [load_spec("auto", gan, strength=s, weights_fidelity=l1).weights_sha256 for s in (0, 0.5, 0.501, 1)]
    assert (digests[0], digests[-1]) == (weights_digest(L1), weights_digest(GAN))
    assert len(set(digests)) == 4


def test_a_published_pair_needs_no_names(tmp_path, monkeypatch, files):
    for name, path in zip(("real-x2", FIDELITY["real-x2"]), files, strict=True):
        file = PublishedFile(file=path.name, url=None, size_bytes=None, sha256=None, licence="-")
        monkeypatch.setitem(PRESETS, name, Preset(name=name, task="real", scale=2, config=CONFIG, published=file))
    there = load_spec("real-x2", strength=0.5, cache=tmp_path)
    assert there.name == "real-x2"
    assert load_spec("real-x2", strength=0.5, weights_fidelity="published", cache=tmp_path) == there
    own = load_spec("real-x2", files[0], strength=0.5, weights_fidelity="published", cache=tmp_path)
    assert own.weights_sha256 == there.weights_sha256
    with pytest.raises(WeightsError, match="random weights are faithful to nothing"):
        load_spec("real-x2", strength=0.5, weights_fidelity="random", cache=tmp_path)
    assert there.weights_sha256 == load_spec("auto", files[0], strength=0.5, weights_fidelity=files[1]).weights_sha256


def test_both_ends_of_a_published_pair_are_one_architecture():
    for name, fidelity in FIDELITY.items():
        assert PRESETS[name].config == PRESETS[fidelity].config is not None


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_strength_beyond_the_ends_is_refused(files, strength):
    with pytest.raises(ValueError, match="strength must be between 0"):
        load_blended("auto", *files, strength)


@pytest.mark.parametrize("name", ["lightweight-x2", "bicubic-x2", "real-psnr-x4", "anime-bubble-x2"])
def test_a_model_without_a_pair_is_answered_with_those_that_have_one(name):
    with pytest.raises(WeightsError, match=f"{name} has no fidelity weights .* real-x2, real-x4"):
        load_spec(name, strength=0.5)


def test_weights_of_ones_own_want_fidelity_weights_of_ones_own(files):
    with pytest.raises(WeightsError, match="real-x2 with weights of its own has no fidelity weights"):
        load_spec("real-x2", files[0], strength=0.5)
    with pytest.raises(ValueError, match=r"fidelity weights are for a strength; .* leave .*l1\.safetensors out"):
        load_spec("auto", files[0], weights_fidelity=files[1])
    with pytest.raises(WeightsError, match="bicubic-x2 has no weights"):
        load_spec("bicubic-x2", files[0], strength=0.5, weights_fidelity=files[1])


def test_two_architectures_are_refused(files, tmp_path):
    other = tmp_path / "wide.safetensors"
    other.write_bytes(to_bytes(random_state(SwinIRConfig(**SMALL | {"embed_dim": 24}))))
    with pytest.raises(WeightsError, match=r"one architecture, but .* 24 channels.* 12 channels") as caught:
        load_spec("auto", files[0], strength=0.5, weights_fidelity=other)
    assert "\n" not in str(caught.value)
