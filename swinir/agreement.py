"""Whether another way to compute a network can be had on the machine at hand, and, to train it, has the network's gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from swinir.model import SwinIR, SwinIRConfig
from swinir.packed import TOKENS

TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 0.2}  # SwinIR-L has 0.08 in bfloat16; what is lost is off by 1


def power_of_two(size: int) -> int:
    """The least that holds ``size``, of those that the matrix units take: 16 or more."""
    return max(16, 1 << (size - 1).bit_length())


def suits_triton(network: SwinIR) -> bool:
    """Whether the Triton kernels have room for its windows, and its GPU multiplies bfloat16."""
    device = network.mean.device
    too_old = device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0)
    return network.config.window_size**2 <= TOKENS and not too_old


def has_gradients(
    config: SwinIRConfig, way: Callable[[SwinIR], SwinIR], dtype: torch.dtype, device: torch.device, *, cast: bool = False
) -> bool:
    """For two blocks as wide as those of ``config`` with random weights: where training begins, most gradients are 0.

    ``way`` computes in ``dtype``, by itself or, if ``cast``, as autocast has it. Raises whatever ``way`` fails with.
    """
    config = dataclasses.replace(config, depths=(2,), num_heads=config.num_heads[:1])
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        network = SwinIR(config)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    shallow = torch.randn((1, config.embed_dim, 2 * config.window_size, 3 * config.window_size), generator=generator)
    weights = torch.randn(shallow.shape, generator=generator)
    network, shallow, weights = network.to(device).train(), shallow.to(device), weights.to(device)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        truth = slopes(network, shallow, weights)
        with torch.autocast(device.type, torch.bfloat16, enabled=cast and dtype == torch.bfloat16):
            found = slopes(way(network), shallow, weights)
    return all(float((a - b).norm()) <= TOLERANCES[dtype] * float(b.norm()) for a, b in zip(found, truth, strict=True))


def slopes(network: SwinIR, shallow: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
    """Gradients of the weighted sum of a body's features, for the features that go in and for the parameters of its groups."""
    shallow = shallow.detach().requires_grad_()
    return torch.autograd.grad((network._body(shallow) * weights).sum(), [shallow, *network.layers.parameters()])
