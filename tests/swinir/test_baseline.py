"""What speed is measured against computes the same: the published way, checked against the goldens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import GOLDENS, from_golden, network

from jobs.baseline import ReferenceSwinIR, published_network
from pipeline.errors import ConfigError

# A class of the published constructor's arguments, whose parameters are its own.
OTHER = """
import torch
class SwinIR(torch.nn.Module):
    def __init__(self, img_size, in_chans, depths, embed_dim, num_heads, window_size, mlp_ratio, upscale, img_range, upsampler,
                 resi_connection):
        super().__init__()
        self.mine = torch.nn.Linear(1, 1)
"""


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
def test_the_published_way_matches_every_golden(path):
    model, x, truth = from_golden(path)
    with torch.inference_mode():
        assert np.abs(ReferenceSwinIR(model)(x).numpy() - truth).max() < 1e-5


def test_a_folder_that_is_no_checkout_is_said(tmp_path):
    with pytest.raises(ConfigError, match="no usable checkout"):
        published_network(tmp_path, network())


def test_a_checkout_with_other_parameters_is_said(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "network_swinir.py").write_text(OTHER)
    for name in ("models", "models.network_swinir"):
        monkeypatch.delitem(__import__("sys").modules, name, raising=False)
    with pytest.raises(ConfigError, match="other parameters"):
        published_network(tmp_path, network())
