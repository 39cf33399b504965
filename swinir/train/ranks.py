"""Processes that train together, by torch.distributed: which of them this one is, and sums over all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


def place_among_ranks() -> tuple[int, int]:
    """The rank of this process, and how many there are; (0, 1) where it trains alone."""
    together = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if together else (0, 1)


def add_over_ranks(tensors: Sequence[Tensor]) -> None:
    """Replace each by its sum over all processes, in one message."""
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])  # in whatever order a process keeps its axes in memory
    dist.all_reduce(flat)
    for tensor, part in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view(tensor.shape))
