"""Tiles that are as in the frame before are not computed again, and what comes out is the same bit for bit."""

from __future__ import annotations

import pytest
import torch
from tiny import as_tensor, network, picture
from torch import Tensor, nn

from swinir.reuse import TileMemory
from swinir.upscaler import Upscaler


class Counts(nn.Module):
    """How many tiles a network was given."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.tiles = network(), 0

    def forward(self, x: Tensor) -> Tensor:
        self.tiles += len(x)
        return self.network(x)


def upscaler(tile: int = 32) -> tuple[Upscaler, Counts]:
    counts = Counts()
    return Upscaler.from_network(counts, scale=2, tile=tile), counts


def frames() -> list[Tensor]:
    """Three frames of 2 x 3 tiles of 32: the second changes in one corner, the third is the second again."""
    first = as_tensor(picture(56, 80))
    second = first.clone()
    second[..., :5, :7] = 0.25
    return [first, second, second.clone()]


def test_only_tiles_that_changed_are_computed_and_nothing_differs():
    up, counts = upscaler()
    alone = [up.upscale(frame) for frame in frames()]
    per_frame = counts.tiles // 3
    counts.tiles = 0
    memory = TileMemory()
    together = [up.upscale(frame, memory) for frame in frames()]
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    assert counts.tiles == memory.num_computed == per_frame + 1
    assert memory.num_reused == 2 * per_frame - 1


def test_a_change_in_the_margin_of_a_tile_counts():
    up, _ = upscaler()
    first, second = as_tensor(picture(56, 80)), as_tensor(picture(56, 80))
    second[..., 26, 30] += 1 / 255  # in the overlap of four tiles
    memory = TileMemory()
    up.upscale(first, memory)
    before = memory.num_computed
    assert torch.equal(up.upscale(second, memory), up.upscale(second))
    assert memory.num_computed - before == 4


def test_frames_of_another_size_and_smaller_tiles_are_computed():
    up, _ = upscaler()
    memory = TileMemory()
    for x in (as_tensor(picture(56, 80)), as_tensor(picture(40, 80)), as_tensor(picture(80, 120))):
        assert torch.equal(up.upscale(x, memory), up.upscale(x))
    up.tile = 64
    x = as_tensor(picture(80, 120))
    assert torch.equal(up.upscale(x, memory), up.upscale(x))


def test_a_result_changed_in_place_does_not_change_the_next():
    up, _ = upscaler(tile=64)
    x, memory = as_tensor(picture(24, 24)), TileMemory()
    first = up.upscale(x, memory).clone()
    up.upscale(x, memory).mul_(2)
    assert torch.equal(up.upscale(x, memory), first)


def test_a_frame_changed_in_place_afterwards_is_noticed():
    up, _ = upscaler(tile=64)
    x, memory = as_tensor(picture(24, 24)), TileMemory()
    up.upscale(x, memory)
    x.mul_(0.5)
    assert torch.equal(up.upscale(x, memory), up.upscale(x))


def test_what_a_network_passes_on_as_it_is_stays_when_the_frame_changes():
    up, memory = Upscaler.from_network(nn.Identity(), scale=1), TileMemory()
    x = as_tensor(picture(24, 24))
    up.upscale(x, memory)
    same = x.clone()
    x.mul_(0.5)
    assert torch.equal(up.upscale(same, memory), same)
    assert memory.num_reused == 1


def test_near_takes_small_differences_for_none_but_they_do_not_add_up():
    up, _ = upscaler(tile=64)
    x, memory = as_tensor(picture(24, 24)), TileMemory(tolerance=1.5)
    first = up.upscale(x, memory)
    assert torch.equal(up.upscale(x + 1 / 255, memory), first)
    assert not torch.equal(up.upscale(x + 2 / 255, memory), first)
    with pytest.raises(ValueError, match="got -1"):
        TileMemory(-1)


def test_what_is_not_finite_is_computed_again():
    memory = TileMemory()
    x = torch.full((1, 3, 8, 8), torch.nan)
    for _ in range(2):
        memory.frame(lambda tiles: tiles)([x])
    assert (memory.num_computed, memory.num_reused) == (2, 0)
