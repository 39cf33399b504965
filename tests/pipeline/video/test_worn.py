"""Training clips through video codecs: every frame comes back, worse."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.video.worn import CODECS, Codec, recoded, worn
from swinir.degrade import filtered, gaussian_kernel, luma_of


def clip() -> torch.Tensor:
    noise = torch.from_numpy(np.random.default_rng(0).random((1, 3, 64, 96), np.float32))
    smooth = filtered(noise, gaussian_kernel(2.0, 2.0, 0))[0]
    return torch.stack([smooth[:, :48, shift : shift + 64] for shift in (0, 3, 6, 9, 12)])


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_every_frame_comes_back_worse_with_lower_quality(codec: Codec) -> None:
    low, high = codec.quality
    errors = [(recoded(clip(), codec, quality) - clip()).abs().mean(dim=(1, 2, 3)) for quality in (low, high)]
    assert all(len(error) == 5 for error in errors)
    assert errors[0].mean() < errors[1].mean()
    assert errors[1].max() < 0.1


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_no_picture_gets_darker(codec: Codec) -> None:
    """What moved here, a network would learn to move back, on videos where nothing has moved."""
    drift_codes = 255 * luma_of(recoded(clip(), codec, codec.quality[0]) - clip()).mean()
    assert abs(drift_codes) < 0.2


def test_the_codec_and_its_quality_are_drawn() -> None:
    first, again, *others = (worn(clip(), np.random.default_rng(seed)) for seed in (0, 0, 1, 2, 3))
    assert torch.equal(first, again)
    assert not any(torch.equal(first, other) for other in others)
