"""Window grids over a picture: where their tokens lie, which of them may see each other, and pictures padded to them.

Between two convolutions the tokens stay in *window order*: windows one after another, sorted by which attention mask they
need. Going from one block's grid to the next one's is then a single gather, and no block rolls, partitions or reverses.

B images, H rows, W columns; L tokens in a window (window_size ** 2).
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class WindowLayout:
    """Where each token of a window grid lies in the image, windows sorted by the mask they need.

    ``from_image[i]`` is the image position of token i; ``to_image`` its inverse; ``from_other[i]`` the place of token i in
    the order of the other grid (plain for shifted, shifted for plain). ``mask_runs`` are (start window, stop window, mask):
    one run without a mask on the plain grid; on the shifted one up to four, interior, right, bottom and corner.
    """

    image_shape: tuple[int, int, int]
    from_image: Tensor
    to_image: Tensor
    from_other: Tensor
    mask_runs: tuple[tuple[int, int, Tensor | None], ...]


@lru_cache(maxsize=32)
def window_layout(batch: int, height: int, width: int, window_size: int, shift: int, device: torch.device) -> WindowLayout:
    """The layout of one grid, kept for every size seen, so that a forward pass builds and copies nothing."""
    with torch.inference_mode(False):
        order, counts = window_order(batch, height, width, window_size, shift)
        other, _ = window_order(batch, height, width, window_size, 0 if shift else window_size // 2)
        to_image, other_to_image = torch.argsort(order), torch.argsort(other)
        masks: list[Tensor | None] = list(shift_masks(window_size, shift).to(device)) if shift else [None]
        masks[0] = None  # interior windows look at nothing foreign
        stops = [sum(counts[: i + 1]) for i in range(len(counts))]
        runs = tuple((s - n, s, m) for n, s, m in zip(counts, stops, masks, strict=True) if n)
        return WindowLayout(
            (batch, height, width), order.to(device), to_image.to(device), other_to_image[order].to(device), runs
        )


def window_order(batch: int, height: int, width: int, window_size: int, shift: int) -> tuple[Tensor, list[int]]:
    """Image positions in window order, and how many windows there are of each of the mask kinds (one kind unshifted).

    The shifted grid is the image rolled up and left by ``shift`` (Swin paper, figure 4): windows in its last row or column
    hold pixels from opposite edges, which may not see each other.
    """
    index = torch.arange(batch * height * width, device="cpu").view(batch, height, width)
    if shift:
        index = index.roll((-shift, -shift), dims=(1, 2))
    rows, cols = height // window_size, width // window_size
    windows = index.view(batch, rows, window_size, cols, window_size).permute(0, 1, 3, 2, 4)
    if not shift:
        return windows.reshape(-1), [batch * rows * cols]
    kinds = [windows[:, :-1, :-1], windows[:, :-1, -1:], windows[:, -1:, :-1], windows[:, -1:, -1:]]
    counts = [kind.numel() // window_size**2 for kind in kinds]
    return torch.cat([kind.reshape(-1) for kind in kinds]), counts


def shift_masks(window_size: int, shift: int) -> Tensor:
    """(4, L, L): what to add to the attention of interior, right, bottom and corner windows, 0 or -100 as published."""
    edge = (torch.arange(window_size, device="cpu") >= window_size - shift).long()
    right = edge.repeat(window_size)
    bottom = edge.repeat_interleave(window_size)
    regions = torch.stack([torch.zeros_like(right), right, bottom, right + 2 * bottom])
    return (regions[:, :, None] != regions[:, None, :]).float() * -100.0


def relative_position_index(window_size: int) -> Tensor:
    """(L, L) int64: the row of the bias table for each pair of tokens (Swin paper, section 3.2)."""
    # On the CPU wherever the network is built: for arithmetic on "meta" PyTorch imports its compiler, which takes a second.
    token = torch.arange(window_size**2, device="cpu")
    y, x = token // window_size, token % window_size
    dy = y[:, None] - y[None, :] + window_size - 1
    dx = x[:, None] - x[None, :] + window_size - 1
    return dy * (2 * window_size - 1) + dx


def pad_to_windows(x: Tensor, window_size: int) -> Tensor:
    """(..., H, W) padded right and bottom by reflection to multiples of ``window_size``; as it is where it already fits."""
    for dim in (-2, -1):
        size = x.shape[dim]
        padded = -(-size // window_size) * window_size
        if padded != size:
            x = x.index_select(dim, reflected_index(size, padded, x.device))
    return x


def reflected_index(size: int, padded: int, device: torch.device) -> Tensor:
    """Positions 0..padded reflected into [0, size) without repeating the edge, however small ``size`` is."""
    if size == 1:
        return torch.zeros(padded, dtype=torch.long, device=device)
    position = torch.arange(padded, device=device) % (2 * (size - 1))
    return torch.minimum(position, 2 * (size - 1) - position)
