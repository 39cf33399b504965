"""The paper's tasks: what a model is given, what it is compared with, and how that is scored."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import picture

from swinir.evaluation import (
    Scores,
    Task,
    as_picture,
    as_tensor,
    colour_shifts,
    degraded,
    mean_of,
    measure,
    published_scores,
    score,
    task_of,
    truth_for,
)
from swinir.metrics import channels, luma, psnr, psnr_b, psnr_ssim_y, ssim
from swinir.presets import PRESETS
from swinir.resize import resize_uint8


@pytest.mark.parametrize(
    ("model", "task"),
    [
        ("lightweight-x3", Task("sr", 3)),
        ("bicubic-x2", Task("sr", 2)),
        ("denoise-gray-15", Task("noise", 15, grey=True)),
        ("denoise-color-50", Task("noise", 50)),
        ("jpeg-gray-10", Task("jpeg", 10, grey=True)),
        ("jpeg-color-40", Task("jpeg", 40)),
        ("denoise-light", Task("noise", 25)),
        ("jpeg-light", Task("jpeg", 20)),
    ],
)
def test_a_model_says_what_it_is_for(model, task):
    known = PRESETS[model]
    assert task_of(model, known.scale, known.config.in_chans if known.config else 0, None, None) == task


def test_every_network_has_a_task():
    for known in PRESETS.values():
        if known.config:
            task_of(known.name, known.scale, known.config.in_chans, None, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("identity", 1, 0, None, None), "say what it restores"),
        (("custom", 1, 3, 25, 10), "give one"),
        (("bicubic-x2", 2, 0, 25, None), "measured on reduced pictures"),
    ],
)
def test_a_task_that_nothing_says_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        task_of(*arguments)


def test_what_is_asked_wins_over_the_preset():
    assert task_of("denoise-color-15", 1, 3, 25, None) == Task("noise", 25)
    assert task_of("denoise-gray-15", 1, 1, None, 10) == Task("jpeg", 10, grey=True)


def test_noise_is_that_of_the_reference_seeded_for_each_picture_in_bgr():
    truth = picture(9, 11)
    x = degraded(Task("noise", 25), truth)
    np.random.seed(seed=0)
    bgr = truth[..., ::-1].astype(np.float32) / 255
    expected = (bgr + np.random.normal(0, 25 / 255, bgr.shape)).astype(np.float32)[..., ::-1]
    assert x.dtype == torch.float32
    assert np.array_equal(x[0].permute(1, 2, 0).numpy(), expected)
    assert torch.equal(degraded(Task("noise", 25), truth), x)


def test_noise_may_leave_the_range_and_grey_has_its_own():
    x = degraded(Task("noise", 50, grey=True), np.zeros((30, 30), np.uint8))
    assert x.shape == (1, 1, 30, 30)
    assert x.min() < 0
    assert 255 * x.std() == pytest.approx(50, abs=2)


@pytest.mark.parametrize("grey", [False, True])
def test_jpeg_is_what_a_file_of_that_quality_gives(grey):
    truth = truth_for(Task("jpeg", 10, grey), picture(40, 48))
    file = io.BytesIO()
    Image.fromarray(truth).save(file, "JPEG", quality=10)
    assert np.array_equal(as_picture(degraded(Task("jpeg", 10, grey), truth)), np.array(Image.open(file)))


def test_the_reduced_picture_is_that_of_the_cropped_original():
    original = picture(31, 44)
    truth = truth_for(Task("sr", 3), original)
    assert truth.shape == (30, 42, 3)
    assert degraded(Task("sr", 3), truth).shape == (1, 3, 10, 14)


def test_grey_is_what_the_reference_measures_each_task_on():
    colour = picture(8, 8)
    assert np.array_equal(truth_for(Task("jpeg", 10, grey=True), colour), luma(colour).round())
    assert np.array_equal(truth_for(Task("noise", 15, grey=True), colour), np.array(Image.fromarray(colour).convert("L")))
    assert truth_for(Task("noise", 15), colour) is colour
    grey = colour[..., 0]
    assert truth_for(Task("jpeg", 10, grey=True), grey) is grey


def test_enlarging_is_scored_on_luma_within_a_border_and_restoring_on_all_there_is():
    truth, output = picture(40, 40), picture(40, 40, seed=1)
    a, b = channels(output), channels(truth)
    assert score(Task("sr", 2), output, truth) == Scores(*psnr_ssim_y(output, truth, 2))
    noise = score(Task("noise", 15), output, truth)
    assert noise.psnr == psnr(np.stack(a), np.stack(b))
    assert noise.ssim == pytest.approx(sum(ssim(x, y) for x, y in zip(a, b, strict=True)) / 3)
    assert noise.psnr_b is None
    jpeg = score(Task("jpeg", 10), output, truth)
    assert jpeg.psnr_b == pytest.approx(sum(psnr_b(x, y) for x, y in zip(a, b, strict=True)) / 3)


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        score(Task("noise", 15), np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9), np.uint8))


def test_the_baseline_of_enlarging_is_bicubic_and_that_of_restoring_the_input():
    truth = picture(40, 40)
    lr = as_picture(degraded(Task("sr", 2), truth))
    measured = measure(Task("sr", 2), lambda _: as_tensor(truth), as_tensor(lr), truth)
    assert measured.ours.psnr == math.inf
    assert np.array_equal(measured.pictures[0], resize_uint8(lr, 2))
    x = degraded(Task("noise", 25), truth)
    measured = measure(Task("noise", 25), lambda _: as_tensor(truth), x, truth)
    assert np.array_equal(measured.pictures[0], (x[0].permute(1, 2, 0) * 255).round().clamp(0, 255).numpy())
    assert measured.baseline.psnr == pytest.approx(20.5, abs=0.7)


def test_the_model_is_given_noise_before_it_is_rounded():
    seen = []
    x = degraded(Task("noise", 50), picture(16, 16))
    measure(Task("noise", 50), lambda given: seen.append(given) or given, x, picture(16, 16))
    assert seen[0] is x


def test_a_mean_has_the_columns_that_all_rows_have():
    assert mean_of([Scores(30, 0.5, 28), Scores(32, 0.7, 29)]) == (31, pytest.approx(0.6), 28.5, None)
    assert mean_of([Scores(30, 0.5), Scores(32, 0.7)]).psnr_b is None
    with pytest.raises(ValueError, match="no images"):
        mean_of([])


def test_published_figures_are_of_models_that_can_be_named():
    assert {name.removesuffix("+") for name in published_scores()} <= set(PRESETS)
    assert published_scores()["lightweight-x2"]["Set5"] == [38.14, 0.9611]
    assert published_scores()["jpeg-gray-10"]["classic5"] == [30.27]


def test_plain_colours_that_move_are_told_apart_from_borders_that_do():
    def greener(x):
        large = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        large[:, 1] += 2 / 255
        large[..., :9, :] = 7
        return large

    shifts = colour_shifts(greener, 2)
    assert len(shifts) == 125
    assert sum(abs(shift - 2) < 1e-3 for shift in shifts) == 100  # no green is greener than the greenest
    assert sum(shift < 1e-3 for shift in shifts) == 25
