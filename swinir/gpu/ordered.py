"""The parameters of a block as the kernel of ``direct.py`` reads them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from swinir.gpu.packing import CHUNK, ONES, Launch, PackedBlock, head_width, parts, rounded_and_rest
from swinir.model import Block, SwinIRConfig

COLUMNS = 64  # C of direct.py, which can be imported only where Triton can
HEAD = 16  # columns of one
SURE = 8.0  # whose GELU is itself
DIRECT_LAUNCHES = (
    Launch(4, 1, 1, 128, direct=True), Launch(4, 1, 1, direct=True), Launch(4, 1, 1, 128, direct=True, persistent=True),
)  # fmt: skip
PERSISTENT = 60, 6, 1e-5, 128  # channels, heads, epsilon and padded hidden channels of persistent.py
SCALE = 2.0**-26  # what it multiplies the sums of a softmax with
# Of its position biases for a query, in binary digits. Then of a sum that the SCALE leaves a number, what is lost since float32
# holds none so small, 2^-126, is nothing beside it.
SPREAD = 100.0


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
        from swinir.gpu.direct import direct_kernel

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
        plain = self._bias[:1].float()  # of windows without a mask
        plain -= plain.amax(-1, keepdim=True)  # of each query, which a softmax does not see
        self._bias = as_loaded(self._bias)
        suits = dtype == torch.bfloat16 and (dim, heads, self._shape[3], self._padded[3]) == PERSISTENT
        self._persistent = None
        if suits and float(plain.min()) > -SPREAD:
            self._persistent = *with_sums(self._qkv, self._proj), as_loaded(plain)[0].exp2().to(dtype)

    def attend(self, x_BHWC: Tensor, out_BHWC: Tensor, launch: Launch, *, whole: bool) -> None:
        """All of the block, by the kernel: ``launch`` is one of DIRECT_LAUNCHES and ``whole`` is true."""
        assert launch.direct
        assert whole
        batch, height, width, _ = x_BHWC.shape
        rows, cols = height // 8, width // 8
        inner_rows, inner_cols = rows - bool(self._shift), cols - bool(self._shift)
        if launch.persistent and self._persistent:
            gpu = torch.cuda.get_device_properties(x_BHWC.device)
            num_programs = gpu.multi_processor_count
            # Compiled for another than Hopper, LLVM ends the process: no exception, which the choice could go on after. AMD's
            # have a 9 there too.
            is_hopper = gpu.major == 9 and torch.version.hip is None
            if is_hopper and can_walk(inner_rows, inner_cols, num_programs):
                for x_HWC, out_HWC in zip(x_BHWC, out_BHWC, strict=True):
                    self._walk(x_HWC, out_HWC, inner_rows, inner_cols, num_programs, self._persistent)
                if self._shift:
                    self._run(x_BHWC, out_BHWC, launch, (rows + cols - 1, 1, batch), edges=True)
                return
        self._run(x_BHWC, out_BHWC, launch, (cols, rows, batch), edges=False)

    def _run(self, x_BHWC: Tensor, out_BHWC: Tensor, launch: Launch, grid: tuple[int, int, int], *, edges: bool) -> None:
        """A program for each window, or for each of those that a shifted grid wraps around."""
        _, height, width, _ = x_BHWC.shape
        dim, heads, _, eps = self._shape
        _, _, d, h = self._padded
        self._direct[grid](
            x_BHWC, out_BHWC, self._qkv, self._bias, self._proj, self._fc1, self._fc2, height, width, self._shift,
            DIM=dim, HEADS=heads, EPS=eps, D=d, H=h, CHUNK=CHUNK, PRECISION=self._precision, EDGES=edges,
            num_warps=launch.num_warps, num_stages=launch.num_stages, maxnreg=launch.max_registers,
        )  # fmt: skip

    def _walk(
        self, x_HWC: Tensor, out_HWC: Tensor, rows: int, cols: int, num_programs: int, own: tuple[Tensor, Tensor, Tensor]
    ) -> None:
        """All windows that do not wrap around."""
        from swinir.gpu.persistent import persistent_kernel

        width, (qkv, proj, factors) = x_HWC.shape[1], own
        persistent_kernel[(num_programs,)](
            x_HWC, out_HWC, qkv, factors, proj, self._fc1, self._fc2,
            width, self._shift * (width + 1), -(-(2**32) // cols), 8 * (width - cols), rows * cols, num_warps=4,
        )  # fmt: skip


def can_walk(rows: int, cols: int, num_programs: int) -> bool:
    """Whether each of four groups of warps in a program has two windows or more, for which it is worth to read all weights,
    and the row of a window is the upper half of its number times 2^32 over ``cols``, which is rounded up, in 32 bits.
    """
    return rows * cols >= 8 * num_programs and cols > 2 and rows * cols**2 < 2**32


def with_sums(qkv_3CE: Tensor, proj_EC: Tensor) -> tuple[Tensor, Tensor]:
    """Weights for ``persistent.py``: of a head's values, channels at 0 to 8 and 10, their sum at 9, 11, 13 and 15."""
    columns = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 9, 10, 11, 10, 11, 10], device=qkv_3CE.device)
    values = qkv_3CE[2].view(COLUMNS, -1, HEAD)[..., columns]
    values[..., 9::2] *= SCALE
    heads = proj_EC.view(-1, HEAD, COLUMNS)
    proj = torch.zeros_like(heads)
    proj[:, [0, 1, 2, 3, 4, 5, 6, 7, 8, 10]] = heads[:, :10] * SCALE  # for over so small a sum they are that much larger
    proj[:, 9] = heads[:, 10]
    return torch.stack([*qkv_3CE[:2], values.flatten(1)]), proj.flatten(0, 1)


def digits(num: int, sizes: tuple[int, ...]) -> Iterator[Tensor]:
    """Of the numbers below ``num``, in a system of those sizes; PyTorch's own ``unravel_index`` imports SymPy."""
    return map(torch.from_numpy, np.unravel_index(np.arange(num), sizes))


def channel_order() -> Tensor:
    """The channel that each column holds."""
    q, f, e, j, d = digits(COLUMNS, (2, 2, 2, 4, 2))
    return 32 * q + 8 * j + 4 * f + 2 * e + d


def token_order() -> Tensor:
    """The token of its window that each row holds."""
    w, r, i = digits(64, (4, 2, 8))
    return 32 * r + 8 * w + i


def as_loaded(bias: Tensor) -> Tensor:
    """(kinds, heads, queries, keys) in the order in which threads load them."""
    tokens = token_order().to(bias.device)
    by_row = bias[..., tokens, :][..., tokens].view(*bias.shape[:2], 4, 2, 8, 4, 2, 4, 2)  # w, r, i; q, e, j, d
    return by_row.permute(0, 1, 5, 2, 4, 7, 6, 3, 8).contiguous()
