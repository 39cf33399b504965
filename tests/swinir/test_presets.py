"""Every published model has a name, an architecture and a file; the baselines are exact."""

import json

import pytest
import torch

from swinir.presets import MODEL_ZOO, PRESETS, baseline, preset, presets_of
from swinir.resize import resize


def test_every_official_file_has_one_preset():
    rows = json.loads(MODEL_ZOO.read_text())["official"]
    files = [known.published.file for known in PRESETS.values() if known.published and known.config]
    assert sorted(files) == sorted(row["file"] for row in rows)
    assert len(rows) == 30


def test_every_community_file_has_one_preset_and_a_place():
    rows = json.loads(MODEL_ZOO.read_text())["community"]
    found = [known for known in PRESETS.values() if known.published and not known.config]
    assert sorted(known.published.sha256 for known in found) == sorted(row["sha256"] for row in rows)
    assert len(rows) == 6
    files = [url for row in rows for url in row["urls"] if url.endswith(".pth")]
    assert set(files) <= {known.published.url for known in found}
    for known in found:
        assert known.name.endswith(f"-x{known.scale}")
        assert known.published.url is None or known.published.url.endswith("/" + known.published.file)
        assert not known.weightless


def test_the_carried_table_is_the_shared_one(shared):
    assert json.loads(MODEL_ZOO.read_text()) == json.loads((shared / "model_zoo.json").read_text())


@pytest.mark.parametrize(
    ("name", "scale", "chans", "window", "upsampler"),
    [
        ("classical-x8", 8, 3, 8, "pixelshuffle"),
        ("classical-div2k-x3", 3, 3, 8, "pixelshuffle"),
        ("lightweight-x3", 3, 3, 8, "pixelshuffledirect"),
        ("real-psnr-x2", 2, 3, 8, "nearest+conv"),
        ("real-large-x4", 4, 3, 8, "nearest+conv"),
        ("denoise-gray-25", 1, 1, 8, ""),
        ("jpeg-color-40", 1, 3, 7, ""),
    ],
)
def test_a_preset_is_of_its_kind(name, scale, chans, window, upsampler):
    config = preset(name).config
    assert (config.upscale, config.in_chans, config.window_size, config.upsampler) == (scale, chans, window, upsampler)
    assert config.img_range == (255 if window == 7 else 1)
    assert preset(name).scale == scale
    assert name in presets_of(config)


TYPOS = [("lightwieght-x2", "lightweight-x2"), ("realx4", "real-x4"), ("bicubic", "bicubic-x")]


@pytest.mark.parametrize(("typo", "meant"), TYPOS)
def test_an_unknown_name_is_answered_with_the_nearest(typo, meant):
    with pytest.raises(ValueError, match=f"unknown model '{typo}'; did you mean '{meant}") as caught:
        preset(typo)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scale", range(2, 9))
def test_baselines_enlarge_exactly(scale):
    x = torch.rand(2, 3, 5, 7)
    near = baseline(f"nearest-x{scale}")(x)
    assert near.shape == (2, 3, 5 * scale, 7 * scale)
    assert torch.equal(near[..., ::scale, ::scale], x)
    assert torch.equal(near[..., scale - 1 :: scale, scale - 1 :: scale], x)
    assert torch.equal(baseline(f"bicubic-x{scale}")(x), resize(x, scale))
    assert baseline("identity")(x) is x


def test_a_model_with_weights_is_no_baseline():
    with pytest.raises(ValueError, match="not a weightless model"):
        baseline("real-x4")
