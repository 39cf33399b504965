"""Tiles cover every pixel on the window grid, blend without a seam, and shrink when memory runs out."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import as_tensor, network, picture, psnr
from torch import nn

from swinir.tiling import blend_weights, blended_bands, overlap_for, plan_axis, plan_tiles, round_up
from swinir.upscaler import Upscaler
from swinir.windows import pad_to_windows

windows = st.sampled_from([1, 7, 8])


@st.composite
def axes(draw):
    window = draw(windows)
    tile = window * draw(st.integers(2, 40))
    overlap = window * draw(st.integers(0, tile // window // 2))
    return draw(st.integers(1, 3000)), tile, overlap, window


@given(axes())
def test_spans_are_equal_aligned_overlapping_and_cover_the_padded_axis(axis):
    size, tile, overlap, window = axis
    spans = plan_axis(*axis)
    padded = round_up(size, window)
    assert spans[0][0] == 0
    assert spans[-1][1] == padded
    assert len({stop - start for start, stop in spans}) == 1
    assert spans[0][1] <= tile or len(spans) == 1
    assert all(start % window == 0 == stop % window for start, stop in spans)
    for (start, stop), (next_start, _) in itertools.pairwise(spans):
        assert start < next_start <= stop - overlap
    assert len(spans) == 1 or padded > tile


@given(axes(), st.integers(1, 4))
def test_blend_weights_sum_to_one_at_every_pixel(axis, scale):
    size, _, overlap, window = axis
    spans = plan_axis(*axis)
    total = torch.zeros(round_up(size, window) * scale)
    for (start, stop), weights in zip(spans, blend_weights(spans, overlap, scale), strict=True):
        assert weights.min() >= 0
        total[start * scale : stop * scale] += weights
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-6)


def test_tiles_are_the_product_of_the_axes_in_rows():
    tiles = plan_tiles(20, 40, 16, 8, 8)
    assert [(t.top, t.left) for t in tiles] == [(0, 0), (0, 8), (0, 16), (0, 24), (8, 0), (8, 8), (8, 16), (8, 24)]
    assert {(t.bottom - t.top, t.right - t.left) for t in tiles} == {(16, 16)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 16, 8, 8), "positive"),
        ((50, 20, 8, 8), "multiples of the window"),
        ((50, 16, 4, 8), "multiples of the window"),
        ((50, 16, 16, 8), "overlap the smaller"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        plan_axis(*arguments)


def test_the_overlap_is_whole_windows_and_a_quarter_of_the_tile_at_most():
    assert overlap_for(256, 8, 32) == 32
    assert overlap_for(252, 7, 32) == 35
    assert overlap_for(64, 8, 32) == 16
    assert overlap_for(32, 8, 32) == 8
    assert overlap_for(256, 1, 0) == 0


CUTS = [(50, 70, 32, 8), (33, 90, 28, 7), (5, 300, 64, 1), (9, 9, 64, 8)]


@pytest.mark.parametrize(("height", "width", "tile", "window"), CUTS)
def test_bands_are_in_order_cover_once_and_join_to_the_whole(height, width, tile, window):
    x = torch.rand(2, 3, height, width)
    overlap = overlap_for(tile, window, 16)
    bands = list(blended_bands(x, tile, overlap, window, 1, lambda tiles: tiles))
    tops = [0]
    for top, band in bands:
        assert top == tops[-1]
        tops.append(top + band.shape[2])
    torch.testing.assert_close(torch.cat([band for _, band in bands], dim=2), x, rtol=0, atol=1e-6)


def test_tiles_see_the_padding_that_the_whole_image_would():
    seen = []
    x = torch.rand(1, 1, 20, 45)
    list(blended_bands(x, 24, 0, 8, 1, lambda tiles: seen.extend(tiles) or tiles))
    torch.testing.assert_close(torch.cat(seen, dim=3), pad_to_windows(x, 8), rtol=0, atol=0)


def gradient_energy(y):
    return (y[..., 1:] - y[..., :-1]).double() ** 2


def seam_ratio(y, lines):
    """Energy of the horizontal gradient across the given columns over that elsewhere."""
    energy = gradient_energy(y).mean(dim=(0, 1, 2))
    on = torch.zeros(len(energy), dtype=torch.bool)
    on[[line - 1 for line in lines]] = True
    return float(energy[on].mean() / energy[~on].mean())


@pytest.mark.parametrize("changes", [{}, {"window_size": 7, "upscale": 1, "upsampler": "", "img_range": 255.0}])
def test_tiled_and_untiled_agree_and_no_seam_shows(changes):
    model = network(**changes)
    scale, window = model.config.upscale, model.config.window_size
    x = as_tensor(picture(150, 200))
    whole = Upscaler.from_network(model, scale=scale, window=window, precision="fp32", tile=1024).upscale(x)
    up = Upscaler.from_network(model, scale=scale, window=window, precision="fp32", tile=72)
    tiled = up.upscale(x)
    assert psnr(tiled, whole) > 50
    spans = plan_axis(200, up.tile, overlap_for(up.tile, window, 32), window)
    assert len(spans) > 2
    lines = sorted({edge * scale for span in spans for edge in span} - {0, spans[-1][1] * scale})
    lines = [line for line in lines if line < tiled.shape[-1]]
    assert seam_ratio(tiled, lines) / seam_ratio(whole, lines) < 1.02


class RunsOut(nn.Module):
    """Has memory for images up to a number of pixels, and says so as CUDA or the CPU does."""

    def __init__(self, network: nn.Module, limit: int, error: RuntimeError) -> None:
        super().__init__()
        self.network, self.limit, self.error, self.failures = network, limit, error, 0

    def forward(self, x):
        if x.shape[-1] * x.shape[-2] > self.limit:
            self.failures += 1
            raise self.error
        return self.network(x)


ERRORS = [torch.OutOfMemoryError("CUDA out of memory. Tried"), RuntimeError("DefaultCPUAllocator: can't allocate memory: you")]


@pytest.mark.parametrize("error", ERRORS, ids=["cuda", "cpu"])
def test_out_of_memory_halves_the_tile_and_the_image_is_the_same(error, small_network):
    x = as_tensor(picture(100, 140))
    whole = Upscaler.from_network(small_network, scale=2, tile=256, precision="fp32").upscale(x)
    warnings = []
    tight = RunsOut(small_network, 70 * 70, error)
    up = Upscaler.from_network(tight, scale=2, tile=256, precision="fp32")
    up.warn = warnings.append
    assert psnr(up.upscale(x), whole) > 50
    assert (up.tile, tight.failures) == (64, 1)
    up.upscale(x)
    assert tight.failures == 1, "the smaller tile is remembered"
    assert warnings == ["custom on cpu ran out of memory with tiles of 140 pixels; going on at 64"]
    smaller = Upscaler.from_network(RunsOut(small_network, 64 * 64, error), scale=2, tile=64, precision="fp32")
    assert torch.equal(up.upscale(x), smaller.upscale(x)), "what comes out depends on the tile, not on the way to it"


def test_when_the_smallest_tile_does_not_fit_the_error_says_so(small_network):
    up = Upscaler.from_network(RunsOut(small_network, 100, ERRORS[0]), scale=2, tile=256, precision="fp32")
    up.warn = lambda line: None
    with pytest.raises(MemoryError, match="even with tiles of 32 pixels; free memory"):
        up.upscale(torch.rand(1, 3, 100, 140))


def test_another_error_is_not_taken_for_missing_memory(small_network):
    up = Upscaler.from_network(RunsOut(small_network, 0, RuntimeError("shapes cannot be multiplied")), scale=2)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        up.upscale(torch.rand(1, 3, 8, 8))
