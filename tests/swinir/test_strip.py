"""The strip of crops where a model and its baseline differ most."""

import numpy as np
import pytest
from tiny import picture

from swinir.strip import ENLARGED, draw_strip, worst_spot


@pytest.fixture
def pictures():
    """The model differs from the baseline by 90 codes in the 20 pixels square from (row, column) (150, 100)."""
    baseline = picture(200, 300)
    ours = baseline.copy()
    ours[150:170, 100:120] = baseline[150:170, 100:120] ^ 64
    return baseline, ours, picture(200, 300, seed=1)


def test_the_spot_holds_what_differs(pictures):
    spot = worst_spot("x", pictures, size=20)
    assert spot.label == "x at 100,150"
    assert spot.difference == pytest.approx(64)
    for crop, whole in zip(spot.crops, pictures, strict=True):
        assert np.array_equal(crop, whole[150:170, 100:120])


def test_a_picture_smaller_than_a_crop_is_shown_whole():
    small = picture(10, 12)
    spot = worst_spot("small", (small, small, small))
    assert spot.crops[0].shape == (10, 12, 3)
    assert spot.difference == 0


def test_the_strip_shows_baseline_ours_and_truth_from_the_left_worst_first():
    def flat(*colour):
        return np.full((20, 20, 3), colour, np.uint8)

    mild = worst_spot("mild", (flat(250, 9, 9), flat(250, 9, 99), flat(250, 9, 199)))
    worst = worst_spot("worst", (flat(9, 250, 9), flat(199, 250, 9), flat(99, 250, 9)))
    page = np.array(draw_strip([mild, worst], ("bicubic", "ours", "truth")))
    places = [tuple(int(i) for i in np.argwhere((page == crop[0, 0]).all(axis=2))[0]) for crop in (*worst.crops, *mild.crops)]
    assert places == sorted(places)
    assert [y for y, _ in places] == [places[0][0]] * 3 + [places[3][0]] * 3
    assert all((page == crop[0, 0]).all(axis=2).sum() == (20 * ENLARGED) ** 2 for crop in worst.crops)


def test_grey_crops_and_an_empty_strip():
    grey = picture(90, 90)[..., 0]
    assert draw_strip([worst_spot("grey", (grey, grey, grey))], ("input", "ours", "truth")).mode == "RGB"
    with pytest.raises(ValueError, match="at least one spot"):
        draw_strip([], ("a", "b", "c"))
