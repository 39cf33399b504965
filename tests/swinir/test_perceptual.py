"""LPIPS is what the authors' own code computes, and its weights are had, or asked for in one line."""

import json
import re

import numpy as np
import pytest
import torch
from tiny import picture

from jobs import evaluate
from pipeline.errors import ConfigError
from swinir import perceptual
from swinir.checkpoint import WeightsError
from swinir.download import Remote
from swinir.perceptual import WIDTHS, Lpips, load_lpips, lpips_of


def waves(shape: tuple[int, ...]) -> torch.Tensor:
    """Weights that need no file."""
    size = int(np.prod(shape))
    return torch.from_numpy(np.sin(np.arange(size) * 0.37).reshape(shape) * 2 / np.sqrt(size / shape[0])).float()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder with both files, of waves."""
    alexnet = {
        f"features.{name}": waves(tuple(value.shape)) if value.ndim == 4 else torch.zeros_like(value)
        for name, value in Lpips().features.state_dict().items()
    }
    weighing = {f"lin{i}.model.1.weight": waves((1, width, 1, 1)).abs() for i, width in enumerate(WIDTHS)}
    for file, state in zip(perceptual.NAMES, (alexnet | {"classifier.1.weight": torch.zeros(2)}, weighing), strict=True):
        torch.save(state, tmp_path / file)
    monkeypatch.setattr(perceptual, "NAMES", dict.fromkeys(perceptual.NAMES, Remote("http://127.0.0.1:9/none")))
    monkeypatch.setenv("SWINIR_CACHE", str(tmp_path))
    return tmp_path


def test_the_distance_is_that_of_the_authors_code(cache):
    """0.33065569 is what their package, 0.1.4, gives with the same weights."""
    y, x = np.mgrid[:40, :52]
    a = np.stack([x * 5 % 256, y * 6 % 256, (x * y) % 256], 2).astype(np.uint8)
    b = np.stack([(x * 5 + 9) % 256, y * 6 % 256, (x * y * 3) % 256], 2).astype(np.uint8)
    metric = load_lpips()
    assert lpips_of(metric, a, b) == pytest.approx(0.33065569, abs=1e-5)
    assert lpips_of(metric, b, a) == pytest.approx(0.33065569, abs=1e-5)
    assert lpips_of(metric, a, a) == 0


def test_grey_is_three_equal_channels_and_small_pictures_are_refused(cache):
    metric = load_lpips()
    a, b = picture(33, 40, 0)[..., 0], picture(33, 40, 1)[..., 0]
    assert lpips_of(metric, a, b) == pytest.approx(lpips_of(metric, np.dstack([a] * 3), np.dstack([b] * 3)), abs=1e-6)
    assert lpips_of(metric, a[:31, :31], b[:31, :31]) > 0
    with pytest.raises(ValueError, match="needs pictures of 31 pixels each way, got 40x30"):
        lpips_of(metric, a[:30], b[:30])


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", None])
def test_files_of_something_else_are_one_line(cache, damage):
    path = cache / "lpips-0.1-alex.pth"
    if damage is None:
        torch.save({"other": torch.zeros(1)}, path)
    else:
        path.write_bytes(damage)
    with pytest.raises(WeightsError, match="do not hold the weights of LPIPS") as caught:
        load_lpips()
    assert "\n" not in str(caught.value)


def test_without_the_network_it_is_said_where_they_belong(tmp_path, monkeypatch):
    monkeypatch.setenv("SWINIR_OFFLINE", "1")
    with pytest.raises(WeightsError, match=r"the weights of LPIPS, is not here and SWINIR_OFFLINE is set: put https://"):
        load_lpips(tmp_path)


def test_eval_has_a_column_of_it(cache, tmp_path, capsys, monkeypatch):
    (tmp_path / "hr").mkdir()
    from PIL import Image

    Image.fromarray(picture(64, 64, 0)).save(tmp_path / "hr" / "a.png")
    evaluate.evaluate(
        sets=[str(tmp_path / "hr")], model="nearest-x2", device="cpu", lpips=True, colours=False, markdown=tmp_path / "t.md",
        datasets=None, lr=None, hr=None, noise=None, jpeg=None, weights=None, strength=None, weights_fidelity=None,
        ensemble=None, precision="auto", tile=None, strip=None, json_only=True,
    )  # fmt: skip
    row = json.loads(capsys.readouterr().out)["images"][0]
    assert 0 < row["lpips"] != row["bicubic_lpips"] > 0
    lines = (tmp_path / "t.md").read_text().splitlines()
    assert lines[2] == "| image | PSNR dB | SSIM | LPIPS | bicubic dB | bicubic SSIM | bicubic LPIPS |"
    assert re.search(rf"\| a\.png \|.*\| {row['lpips']:.4f} \|", lines[4])
    monkeypatch.setenv("SWINIR_OFFLINE", "1")
    (cache / "lpips-0.1-alex.pth").unlink()
    with pytest.raises(ConfigError, match=r"--lpips: .*SWINIR_OFFLINE"):
        evaluate.open_lpips()
