"""Weights are found, never run as code, and recognised; every refusal is one line."""

import pickle
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import SMALL, network

from swinir import weights as weights_module
from swinir.checkpoint import (
    WeightsError,
    build_network,
    from_bytes,
    parameter_shapes,
    random_state,
    read_checkpoint,
    recognise,
    to_bytes,
    weights_digest,
)
from swinir.model import SwinIRConfig
from swinir.presets import PRESETS, preset
from swinir.weights import load_checkpoint, load_model, locate, resolve


@pytest.fixture(scope="module")
def state():
    return network().state_dict()


def only_line(caught) -> str:
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_place_weights_are_not_read_from_is_named(tmp_path):
    with pytest.raises(WeightsError, match="does not exist"):
        locate(tmp_path / "none.pth")
    with pytest.raises(WeightsError, match="copy the file here first"):
        locate("s3://bucket/x.pth")


def test_the_environment_moves_the_default_cache_only(monkeypatch, tmp_path):
    monkeypatch.setenv("SWINIR_CACHE", str(tmp_path / "there"))
    assert weights_module.default_cache() == tmp_path / "there"
    assert weights_module.cached_file(preset("real-x4"), tmp_path).parent == tmp_path
    monkeypatch.setenv("SWINIR_CACHE", "~/there")
    assert weights_module.default_cache() == Path.home() / "there"


WRAPPED = [lambda s: s, lambda s: {"params": s}, lambda s: {"params_ema": s, "params": {}}, lambda s: {"state_dict": s}]


@pytest.mark.parametrize("wrap", WRAPPED, ids=["bare", "params", "params_ema", "state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_state_dict_is_found_wherever_it_is_kept(state, tmp_path, wrap, prefix):
    path = tmp_path / "w.pth"
    torch.save(wrap({prefix + name: value for name, value in state.items()}), path)
    found = read_checkpoint(path)
    assert found.config == SwinIRConfig(**SMALL)
    assert weights_digest(found.state) == weights_digest(state)


def test_a_state_dict_may_be_called_safetensors(state, tmp_path):
    path = tmp_path / "w.safetensors"
    with path.open("wb") as file:
        torch.save(state, file)
    assert weights_digest(read_checkpoint(path).state) == weights_digest(state)


def test_the_key_the_publisher_used_goes_first(state, tmp_path):
    path = tmp_path / "w.pth"
    other = {name: value + 1 for name, value in state.items()}
    torch.save({"params_ema": other, "params": state}, path)
    assert weights_digest(read_checkpoint(path, "params").state) == weights_digest(state)
    assert weights_digest(read_checkpoint(path).state) == weights_digest(other)


def test_safetensors_are_known_by_content_and_bring_their_range(tmp_path):
    model = network(img_range=255.0)
    path = tmp_path / "misnamed.pth"
    path.write_bytes(to_bytes(model.state_dict(), {"config": '{"img_range": 255.0}'}))
    assert read_checkpoint(path).config == model.config


@pytest.mark.parametrize("config", ['{"a": 1}', "[]", "null", "255", "swinir", "", '{"img_range": "wide"}', '{"img_range": 0}'])
def test_what_others_call_config_says_nothing_of_the_range(state, tmp_path, config):
    path = tmp_path / "theirs.safetensors"
    path.write_bytes(to_bytes(state, {"config": config}))
    assert read_checkpoint(path).config == SwinIRConfig(**SMALL)


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path(self.target),))


def test_a_file_that_wants_to_run_code_is_refused(tmp_path):
    bomb = Bomb()
    bomb.target = str(tmp_path / "ran")
    torch.save({"params": bomb}, tmp_path / "bomb.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(bomb, protocol=2))
    for name in ("bomb.pth", "bare.pth"):
        with pytest.raises(WeightsError, match="run code") as caught:
            read_checkpoint(tmp_path / name)
        only_line(caught)
    assert not (tmp_path / "ran").exists()


JUNK = [
    b"",
    b"<!DOCTYPE html><html></html>",
    b"PK\x03\x04 broken zip",
    b"\x80\x02garbage",
    b"\x10\0\0\0\0\0\0\0{not json}......",
]


@pytest.mark.parametrize("content", JUNK)
def test_a_file_that_is_no_checkpoint_is_one_line(tmp_path, content):
    path = tmp_path / "junk.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"junk\.pth") as caught:
        read_checkpoint(path)
    only_line(caught)


def test_tensors_of_another_network_are_one_line(tmp_path, state):
    path = tmp_path / "other.pth"
    torch.save({"fc.weight": torch.zeros(3)}, path)
    with pytest.raises(WeightsError, match="does not hold a SwinIR network"):
        read_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(WeightsError, match="holds no state dict"):
        read_checkpoint(path)
    torch.save(state | {"absolute_pos_embed": torch.zeros(3)}, path)
    with pytest.raises(WeightsError, match="absolute_pos_embed is no part of that; name a file of SwinIR itself"):
        read_checkpoint(path)
    torch.save(state | {"norm.weight": torch.full((12,), torch.nan)}, path)
    with pytest.raises(WeightsError, match=r"norm\.weight holds values that are not finite"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", sorted(name for name, known in PRESETS.items() if known.config))
def test_every_published_architecture_is_recognised_from_its_tensors(name):
    config = preset(name).config
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in parameter_shapes(config).items()}
    assert recognise(state, name) == config


def test_other_depths_heads_and_ratios_are_recognised():
    config = SwinIRConfig(**(SMALL | {"depths": (1, 3, 2), "num_heads": (2, 3, 6), "mlp_ratio": 4.0, "in_chans": 1}))
    assert recognise(random_state(config), "x") == config


def test_a_file_of_another_architecture_is_explained(tmp_path, state):
    path = tmp_path / "mine.pth"
    torch.save(state, path)
    says = r"mine\.pth holds a pixelshuffledirect x2 network .* but real-x4 is a nearest\+conv x4"
    with pytest.raises(WeightsError, match=says) as caught:
        load_model("real-x4", path)
    assert only_line(caught).endswith("ask for the model 'auto' to use it")
    assert load_model("auto", path).config == SwinIRConfig(**SMALL)


def test_a_file_of_another_preset_names_it(tmp_path):
    path = tmp_path / "x3.safetensors"
    path.write_bytes(to_bytes(random_state(preset("lightweight-x3").config)))
    with pytest.raises(WeightsError, match="ask for 'lightweight-x3' to use it"):
        load_model("lightweight-x2", path)


def test_a_community_model_is_what_its_file_holds_and_of_its_scale(tmp_path, monkeypatch):
    monkeypatch.setattr(weights_module, "fetch", lambda remote, path, what: path)
    path = tmp_path / "2xHFA2kSwinIR-S.pth"
    torch.save({"params_ema": network().state_dict()}, path)
    assert load_model("anime-hfa2k-x2", cache=tmp_path).config == SwinIRConfig(**SMALL)
    torch.save({"params_ema": network(upscale=4).state_dict()}, path)
    with pytest.raises(WeightsError, match=r"holds a pixelshuffledirect x4 network .* but anime-hfa2k-x2 enlarges x2"):
        load_model("anime-hfa2k-x2", cache=tmp_path)
    with pytest.raises(WeightsError, match="only its file says what network"):
        load_model("anime-hfa2k-x2", "random")


def test_weights_of_a_weightless_model_are_refused():
    assert load_model("nearest-x2") is not None
    with pytest.raises(WeightsError, match="bicubic-x2 has no weights"):
        load_model("bicubic-x2", "some.pth")
    with pytest.raises(WeightsError, match="name the file"):
        load_model("auto")


def test_random_weights_are_the_same_each_time_and_leave_the_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = load_checkpoint("lightweight-x2", "random")
    assert torch.equal(torch.get_rng_state(), before)
    assert weights_digest(first.state) == weights_digest(load_checkpoint("lightweight-x2", "random").state)
    assert weights_digest(first.state) != weights_digest(random_state(first.config, seed=1))


def test_bundled_weights_go_before_the_published_file(tmp_path, monkeypatch, state):
    monkeypatch.setattr(weights_module, "BUNDLED", tmp_path)
    (tmp_path / "real-x4.safetensors").write_bytes(b"")
    assert resolve("real-x4") == tmp_path / "real-x4.safetensors"


def test_published_weights_can_be_asked_for_where_others_are_bundled(tmp_path, monkeypatch):
    monkeypatch.setattr(weights_module, "fetch", lambda remote, path, what: path)
    assert resolve("lightweight-x2").parent == weights_module.BUNDLED
    published = preset("lightweight-x2").published
    assert resolve("lightweight-x2", "published", tmp_path) == tmp_path / published.file


@pytest.mark.parametrize("path", sorted(weights_module.BUNDLED.glob("*.safetensors")), ids=lambda path: path.stem)
def test_bundled_weights_fit_their_preset_and_have_a_card_with_their_digest(path):
    digest = weights_digest(load_checkpoint(path.stem).state)
    assert digest in path.with_suffix(".md").read_text(encoding="utf-8")


def test_packed_weights_come_back_and_the_digest_depends_on_every_part(state):
    back = from_bytes(to_bytes(state))
    digest = weights_digest(state)
    assert weights_digest(dict(reversed(back.items()))) == digest
    changed = [
        state | {"norm.bias": state["norm.bias"] + 1e-7},
        state | {"norm.bias": state["norm.bias"].double()},
        state | {"norm.bias": state["norm.bias"].view(2, 6)},
        {("norm2.bias" if k == "norm.bias" else k): v for k, v in state.items()},
    ]
    assert len({digest, *map(weights_digest, changed)}) == 5
    assert re.fullmatch(r"[0-9a-f]{64}", digest)
    with pytest.raises(WeightsError, match="not a safetensors file"):
        from_bytes(b"12345678{}")


def test_a_network_takes_only_weights_that_fit(state):
    config = SwinIRConfig(**SMALL)
    assert not build_network(config, state).training
    with pytest.raises(RuntimeError):
        build_network(replace(config, embed_dim=24), state)
