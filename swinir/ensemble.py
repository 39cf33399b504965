"""The paper's "+": the mean of a network's outputs for the 8 flips and transposes of its input, each turned back."""

from __future__ import annotations

from torch import Tensor, nn

SIZES = (1, 8)  # of an ensemble: the network alone, or all of them


class SelfEnsemble(nn.Module):
    """A network run 8 times on (N, C, H, W); maps to the same shape as the network, in its type.

    The outputs are added in pairs, so that those of a network that turns with its input are given back bit for bit.
    Seven Ways to Improve Example-Based Single Image Super Resolution, Timofte et al., arXiv 1511.02228.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return (self._flipped_both_ways(x) + self._flipped_both_ways(x.mT.contiguous()).mT) / 8

    def _flipped_both_ways(self, x: Tensor) -> Tensor:
        return self._flipped(x) + self._flipped(x.flip(-2)).flip(-2)

    def _flipped(self, x: Tensor) -> Tensor:
        here: Tensor = self.network(x)
        there: Tensor = self.network(x.flip(-1))
        return here + there.flip(-1)
