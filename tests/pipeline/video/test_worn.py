"""Training clips through video codecs: every frame comes back, worse."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.video.worn import CODECS, LAYOUT, Codec, at_bit_rate, decoded, encoded, worn
from swinir.colour import rgb_to_planes
from swinir.train.degrade import filtered, gaussian_kernel, luma_of

each_codec = pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)


def clip() -> torch.Tensor:
    noise = torch.from_numpy(np.random.default_rng(0).random((1, 3, 64, 96), np.float32))
    smooth = filtered(noise, gaussian_kernel(2.0, 2.0, 0))[0]
    return torch.stack([smooth[:, :48, shift : shift + 64] for shift in (0, 3, 6, 9, 12)])


def detailed() -> torch.Tensor:
    """A clip that takes as many bits as are drawn."""
    return clip() + torch.rand((5, 3, 48, 64), generator=torch.Generator().manual_seed(0)) / 10


def recoded(frames: torch.Tensor, codec: Codec, quality: int) -> tuple[torch.Tensor, int]:
    file, num_bytes = encoded([rgb_to_planes(picture, LAYOUT) for picture in frames], codec, quality)
    return decoded(file), num_bytes


@each_codec
def test_every_frame_comes_back_worse_and_smaller_with_lower_quality(codec: Codec) -> None:
    (better, more), (worse, fewer) = (recoded(clip(), codec, quality) for quality in codec.quality)
    errors = [(frames - clip()).abs().mean(dim=(1, 2, 3)) for frames in (better, worse)]
    assert all(len(error) == 5 for error in errors)
    assert errors[0].mean() < errors[1].mean()
    assert errors[1].max() < 0.1
    assert more > fewer


@each_codec
def test_a_bit_rate_is_kept_to_and_would_not_be_by_the_next_better_quality(codec: Codec) -> None:
    found = {quality: recoded(detailed(), codec, quality) for quality in range(codec.quality[0], codec.quality[1] + 1)}
    low, high = codec.bits
    for bits_per_pixel in (low, (low + high) / 2, high):
        allowed_bytes = bits_per_pixel * 5 * 48 * 64 / 8
        frames = at_bit_rate(detailed(), codec, bits_per_pixel)
        quality = next(quality for quality, (theirs, _) in found.items() if torch.equal(theirs, frames))
        assert codec.quality[0] < quality < codec.quality[1]
        assert found[quality][1] <= allowed_bytes < found[quality - 1][1]


@each_codec
def test_a_clip_is_encoded_the_same_every_time(codec: Codec) -> None:
    quality = sum(codec.quality) // 2
    made = [recoded(detailed(), codec, quality) for _ in range(20)]
    assert len({(frames.numpy().tobytes(), num_bytes) for frames, num_bytes in made}) == 1


@each_codec
def test_what_no_quality_keeps_to_gets_the_worst_and_what_all_do_the_best(codec: Codec) -> None:
    best, worst = codec.quality
    assert torch.equal(at_bit_rate(clip(), codec, 1e-6), recoded(clip(), codec, worst)[0])
    assert torch.equal(at_bit_rate(clip(), codec, 1e6), recoded(clip(), codec, best)[0])


def test_what_an_encoder_says_of_itself_counts_for_nothing() -> None:
    """x264 names its settings in 650 bytes."""
    assert recoded(clip(), CODECS[0], CODECS[0].quality[1])[1] < 300


@each_codec
def test_no_picture_gets_darker(codec: Codec) -> None:
    """What moved here, a network would learn to move back, on videos where nothing has moved."""
    drift_codes = 255 * luma_of(recoded(clip(), codec, codec.quality[0])[0] - clip()).mean()
    assert abs(drift_codes) < 0.2


def test_the_codec_and_its_bit_rate_are_drawn() -> None:
    first, again, *others = (worn(detailed(), np.random.default_rng(seed)) for seed in (0, 0, *range(1, 12)))
    assert torch.equal(first, again)
    assert len({other.numpy().tobytes() for other in others}) > len(CODECS)
