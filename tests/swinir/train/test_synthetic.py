"""Drawn training pictures are what they are named after, and the same for the same draw."""

from __future__ import annotations

import numpy as np
import pytest

from swinir.train.synthetic import SIZE, synthetic_picture

TEXT, LINES, GRATINGS, BRICKS, LEAVES, GRADIENTS = range(6)


@pytest.mark.parametrize("kind", range(6))
def test_a_picture_depends_on_its_draw_alone(kind):
    first, again, other = (synthetic_picture(kind, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == (SIZE, SIZE, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def mean_step(picture):
    """Between neighbours in a row, in codes."""
    return np.abs(np.diff(picture.astype(float), axis=1)).mean()


def test_gradients_are_smooth_and_leaves_are_not():
    steps = [mean_step(synthetic_picture(kind, np.random.default_rng(0))) for kind in (GRADIENTS, LEAVES)]
    assert steps[0] < 1.0
    assert steps[1] > 4.0


def test_leaves_are_greener_than_blue():
    for seed in range(3):
        _, green, blue = synthetic_picture(LEAVES, np.random.default_rng(seed)).reshape(-1, 3).mean(axis=0)
        assert green > blue
