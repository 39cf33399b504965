"""The parameters of a block as the kernel of ``triton_direct.py`` reads them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from swinir.model import Block, SwinIRConfig
from swinir.triton_packing import CHUNK, ONES, Launch, PackedBlock, head_width, parts, rounded_and_rest

COLUMNS = 64  # C of triton_direct.py, which can be imported only where Triton can
HEAD = 16  # columns of one
SURE = 8.0  # whose GELU is itself
DIRECT_LAUNCHES = (
    Launch(4, 1, 1, 128, direct=True), Launch(4, 1, 1, direct=True),
    Launch(4, 1, 1, 128, direct=True, by_distance=True), Launch(4, 1, 1, direct=True, by_distance=True),
)  # fmt: skip


def fits(config: SwinIRConfig) -> bool:
    """Whether the kernel is for such networks: the lightweight ones, and others that are padded to as many channels.

    It takes two heads at a time, more than once: with one step there is no loop whose loads could go ahead.
    """
    hidden = int(config.embed_dim * config.mlp_ratio)
    return (
        config.window_size == 8
        and parts(config.embed_dim + ONES) == (COLUMNS, 0)
        and all(heads % 2 == 0 and heads >= 4 and head_width(config.embed_dim // heads) == HEAD for heads in config.num_heads)
        and -hidden % CHUNK >= ONES  # hidden channels to spare
    )


class DirectBlock(PackedBlock):
    """A float32 block of a network that ``fits``."""

    @torch.no_grad()
    def __init__(self, block: Block, shifted: bool, window_size: int, dtype: torch.dtype) -> None:
        from swinir.triton_direct import direct_kernel

        super().__init__(block, shifted, window_size, dtype)
        self._direct = direct_kernel
        dim, heads, _, _ = self._shape
        part, hidden = dim // heads, block.mlp.fc1.out_features
        channels = channel_order().to(self._qkv.device)
        # K, 3, C, D to 3, C, K D: two heads side by side are one product.
        self._qkv = self._qkv[:, :, channels].permute(1, 2, 0, 3).flatten(2).contiguous()
        # Behind a head's channels comes the sum of its softmax over itself, a 1: two heads' meet the bias.
        self._proj[:2, part] = rounded_and_rest(self._proj_bias, self._proj.dtype)
        self._proj = self._proj[..., channels].flatten(0, 1).contiguous()
        # Two hidden channels to spare are SURE for every token.
        self._fc1[dim, hidden : hidden + ONES] = SURE
        self._fc1 = self._fc1[channels].contiguous()
        self._fc2[hidden : hidden + ONES] = rounded_and_rest(self._fc2_bias / SURE, self._fc2.dtype)
        self._fc2 = self._fc2[:, channels].contiguous()
        self._pairs = by_distance(self._bias[0])
        self._bias = as_loaded(self._bias)

    def attend(self, x_BHWC: Tensor, out_BHWC: Tensor, launch: Launch, *, whole: bool) -> None:
        """All of the block, by the kernel: ``launch`` is one of DIRECT_LAUNCHES and ``whole`` is true."""
        assert launch.direct
        assert whole
        batch, height, width, _ = x_BHWC.shape
        dim, heads, window, eps = self._shape
        _, _, d, h = self._padded
        rows, cols = height // window, width // window

        def run(grid: tuple[int, int, int], *, inner: bool = False, edges: bool = False) -> None:
            self._direct[grid](
                x_BHWC, out_BHWC, self._qkv, self._pairs if inner else self._bias, self._proj, self._fc1, self._fc2,
                height, width, self._shift, DIM=dim, HEADS=heads, EPS=eps, D=d, H=h, CHUNK=CHUNK, PRECISION=self._precision,
                INNER=inner, EDGES=edges,
                num_warps=launch.num_warps, num_stages=launch.num_stages, maxnreg=launch.max_registers,
            )  # fmt: skip

        if not launch.by_distance:
            run((cols, rows, batch))
        elif not self._shift:
            run((cols, rows, batch), inner=True)
        else:
            if rows > 1 and cols > 1:
                run((cols - 1, rows - 1, batch), inner=True)
            run((rows + cols - 1, 1, batch), edges=True)


def channel_order() -> Tensor:
    """The channel that each column holds."""
    q, f, e, j, d = torch.unravel_index(torch.arange(COLUMNS), (2, 2, 2, 4, 2))
    return 32 * q + 8 * j + 4 * f + 2 * e + d


def token_order() -> Tensor:
    """The token of its window that each row holds."""
    w, r, i = torch.unravel_index(torch.arange(64), (4, 2, 8))
    return 32 * r + 8 * w + i


def by_distance(bias: Tensor) -> Tensor:
    """(heads, queries, keys) of a window of 8 by 8 to (heads, 16, 16, 2): by how far the query is below a key, and how far that
    key and the next are to its right, both from -7 on.
    """
    steps = torch.arange(-7, 8, device=bias.device)
    first, second = steps.clamp(min=0), (-steps).clamp(min=0)  # of two places that lie a step apart
    queries = first[:, None] * 8 + second[None, :]  # rows by how far the query is below, columns by how far the key is right
    keys = second[:, None] * 8 + first[None, :]
    table = F.pad(bias[:, queries, keys], (0, 2, 0, 1))
    return torch.stack([table[..., :16], table[..., 1:]], -1).contiguous()


def as_loaded(bias: Tensor) -> Tensor:
    """(kinds, heads, queries, keys) in the order in which threads load them."""
    tokens = token_order().to(bias.device)
    by_row = bias[..., tokens, :][..., tokens].view(*bias.shape[:2], 4, 2, 8, 4, 2, 4, 2)  # w, r, i; q, e, j, d
    return by_row.permute(0, 1, 5, 2, 4, 7, 6, 3, 8).contiguous()
