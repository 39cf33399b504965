"""Muon with matrices of one shape in one product: a network of many small ones keeps a GPU waiting for each otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor


class BatchedMuon(torch.optim.Muon):
    """``torch.optim.Muon`` without weight decay, its steps about as long as Adam's, to rounding; its states are the same.

    Jordan et al., 2024, https://kellerjordan.github.io/posts/muon; length of the steps after Liu et al., "Muon is scalable for
    LLM training", arXiv 2502.16982, section 2.2.
    """

    def __init__(self, matrices: Sequence[Tensor]) -> None:
        super().__init__(matrices, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # noqa: ANN401 - there is none
        for group in self.param_groups:
            known = [p for p in group["params"] if p.grad is not None]
            for _, same in groupby(sorted(known, key=lambda p: p.shape), key=lambda p: p.shape):
                self._step(list(same), group)

    def _step(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [p.grad for p in matrices if p.grad is not None]
        for p, gradient in zip(matrices, gradients, strict=True):
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(gradient)
        means = [self.state[p]["momentum_buffer"] for p in matrices]
        torch._foreach_lerp_(means, gradients, 1 - group["momentum"])
        ahead = torch.stack(torch._foreach_lerp(gradients, means, group["momentum"]))
        length = -0.2 * max(matrices[0].shape) ** 0.5 * group["lr"]  # on a GPU a tensor
        steps = orthogonal(ahead, group["ns_coefficients"], group["ns_steps"], group["eps"]).to(matrices[0].dtype) * length
        torch._foreach_add_(matrices, list(steps.unbind()))


def orthogonal(x_NRC: Tensor, coefficients: tuple[float, float, float], num_steps: int, eps: float) -> Tensor:
    """Each of N matrices with its singular values at about 1, by Newton and Schulz' iteration in bfloat16."""
    a, b, c = coefficients
    tall = x_NRC.shape[1] > x_NRC.shape[2]
    x = x_NRC.bfloat16()
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(num_steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
