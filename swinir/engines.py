"""By what means a network is computed: PyTorch, the compiled blocks of a CPU, or the Triton kernels of a GPU."""

from __future__ import annotations

import copy

import torch
from torch import nn

from swinir.cpu.blocks import fused
from swinir.gpu.choice import by_triton
from swinir.head import with_linear_head
from swinir.model import SwinIR


def in_bfloat16(network: SwinIR) -> SwinIR:
    """A copy with its body in bfloat16, by PyTorch."""
    return copy.deepcopy(network).set_body_dtype(torch.bfloat16)


def ways(network: SwinIR, device: torch.device, precision: str) -> tuple[nn.Module, nn.Module]:
    """The network in float32, and as it is computed with: the same, or the fastest way in bfloat16."""
    network = with_linear_head(network)
    if precision == "fp32":
        exact = fused(network) if device.type == "cpu" else network
        return exact, exact
    if device.type == "cuda":
        return network, by_triton(network, in_bfloat16(network))
    faster = fused(network, torch.bfloat16) if device.type == "cpu" else network
    return network, in_bfloat16(network) if faster is network else faster
