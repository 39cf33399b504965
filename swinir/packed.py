"""The parameters of a block, multiplied beforehand where that can be: what the kernels of CPUs and of GPUs both begin with."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor
from torch.nn import functional as F

from swinir.model import Block
from swinir.windows import shift_masks

TOKENS = 64  # of a window, for which the kernels have room
NO_WEIGHT = -1e9  # among scores
LN_2 = math.log(2)


def packed(block: Block, shifted: bool, window_size: int) -> Iterator[Tensor]:
    """The nine tensors of a block in the order of ``Block`` in cpu/window.h.

    The gain and bias of a LayerNorm go into the linear layer behind it, the scale of the scores into the queries; their powers
    are those of 2.
    """
    attn, mlp = block.attn, block.mlp
    dim = attn.proj.in_features
    scale = attn.qkv.weight.new_ones(3 * dim, 1)
    scale[:dim] = (dim // attn.num_heads) ** -0.5 / LN_2
    yield attn.qkv.weight * block.norm1.weight * scale
    yield (attn.qkv.bias + attn.qkv.weight @ block.norm1.bias) * scale[:, 0]
    bias = attn.relative_position_bias_table.index_select(0, attn.relative_position_index)
    yield position_bias(bias, shifted, window_size) / LN_2
    yield attn.proj.weight
    yield attn.proj.bias
    yield mlp.fc1.weight * block.norm2.weight
    yield mlp.fc1.bias + mlp.fc1.weight @ block.norm2.bias
    yield mlp.fc2.weight
    yield mlp.fc2.bias


def position_bias(bias: Tensor, shifted: bool, window_size: int) -> Tensor:
    """(query * key, heads) to (kinds of windows, heads, 64 keys, 64 queries), masks added; keys that are none weigh nothing."""
    tokens = window_size**2
    by_key = bias.view(tokens, tokens, -1).permute(2, 1, 0)
    kinds = by_key[None] + (shift_masks(window_size, window_size // 2).to(bias.device)[:, None] if shifted else 0)
    missing = TOKENS - tokens
    return F.pad(F.pad(kinds, (0, missing)), (0, 0, 0, missing), value=NO_WEIGHT)
