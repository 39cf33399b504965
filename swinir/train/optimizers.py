"""Which optimizers a run has, and how they go on from a state that another machine saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from swinir.model import SwinIR
from swinir.train.muon import BatchedMuon
from swinir.train.recipe import TrainConfig


def optimizers(model: SwinIR, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Adam for all parameters; or Muon for the matrices of the blocks, and Adam for the rest."""
    on_gpu = model.mean.device.type == "cuda"
    adam = partial(torch.optim.Adam, betas=(0.9, 0.99), fused=on_gpu or None, capturable=on_gpu)
    if config.optimizer == "adam":
        return [adam(model.parameters())]
    matrices = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
    known = set(matrices)
    rest = [parameter for parameter in model.parameters() if parameter not in known]
    return [BatchedMuon(matrices), adam(rest)]


def as_run(groups: Sequence[Mapping[str, Any]], optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Groups of a saved state, with what depends on the machine at hand, and the rate, which every step sets."""
    machine = ("lr", "fused", "capturable")
    return [
        {**theirs, **{name: ours[name] for name in machine if name in ours}}
        for theirs, ours in zip(groups, optimizer.param_groups, strict=True)
    ]


def lay_out(optimizer: torch.optim.Optimizer) -> None:
    """What is kept of a parameter in the order in memory that the parameter has here: kernels for all at once insist on it."""
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            if value.shape == parameter.shape:
                kept[name] = torch.empty_like(parameter, requires_grad=False).copy_(value)
