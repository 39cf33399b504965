"""The parameters of a block as the kernels of ``kernels.py`` read them, and how those are launched."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from swinir.agreement import power_of_two
from swinir.model import Block
from swinir.packed import TOKENS, packed

ONES = 2  # channels behind the last whose weights hold the bias
CHUNK = 64  # hidden channels that a program of the MLP holds at once


class Launch(NamedTuple):
    """How a program runs: its warps, its stages of loads ahead, and the windows that it takes, or as many tokens.

    ``max_registers`` are those of a thread, where the compiler would take more. ``direct`` is for ``DirectBlock``, and so is
    ``persistent``, by which windows without a mask go through ``persistent.py`` where they can.
    """

    num_warps: int
    num_stages: int
    windows: int
    max_registers: int | None = None
    direct: bool = False
    persistent: bool = False


# Compiled for Hopper none of them spills a register at 60 channels, nor, of the two kernels, at 180; the last takes 192 KiB of
# shared memory there.
LAUNCHES = (Launch(4, 1, 1), Launch(4, 2, 1), Launch(4, 3, 1), Launch(8, 2, 2))


class PackedBlock:
    """The parameters of a float32 block as the kernels read them: padded, weights in ``dtype``, bfloat16 or float32."""

    @torch.no_grad()
    def __init__(self, block: Block, shifted: bool, window_size: int, dtype: torch.dtype) -> None:
        from swinir.gpu.kernels import attention_kernel, mlp_kernel

        self._attention, self._mlp = attention_kernel, mlp_kernel
        dim, heads, hidden = block.attn.proj.in_features, block.attn.num_heads, block.mlp.fc1.out_features
        self._shape = dim, heads, window_size, block.norm1.eps
        self._shift = window_size // 2 if shifted else 0
        self._precision = "ieee" if dtype == torch.float32 else "tf32"  # which says nothing to bfloat16
        part = dim // heads
        c, more = parts(dim + ONES)
        d, h = head_width(part), -(-hidden // CHUNK) * CHUNK
        self._padded = c, more, d, h
        qkv, qkv_bias, bias, proj, proj_bias, fc1, fc1_bias, fc2, fc2_bias = packed(block, shifted, window_size)
        by_head = with_bias(qkv.T, qkv_bias, c + more, dtype).view(-1, 3, heads, part)
        by_head = F.pad(by_head, (0, d - part))
        by_head[dim, 2, :, part] = 1
        weights = (
            by_head.permute(2, 1, 0, 3),  # K, 3, C, D
            F.pad(proj.view(dim, heads, part).permute(1, 2, 0), (0, c + more - dim, 0, d - part)),  # K, D, C
            F.pad(with_bias(fc1.T, fc1_bias, c + more, dtype), (0, h - hidden)),
            F.pad(fc2.T, (0, c + more - dim, 0, h - hidden)),
        )
        # GELU comes in float16, and so must the weights that it meets.
        dtypes = dtype, dtype, dtype, dtype if dtype == torch.float32 else torch.float16
        self._qkv, self._proj, self._fc1, self._fc2 = (
            weight.to(each).contiguous() for weight, each in zip(weights, dtypes, strict=True)
        )
        # Kinds, K, queries, keys. Read by every window: half the bytes where products are rounded anyway, in 11 bits.
        bias = bias.transpose(-1, -2).contiguous()
        self._bias = bias if dtype == torch.float32 else bias.clamp(min=torch.finfo(torch.float16).min).half()
        self._proj_bias, self._fc2_bias = (F.pad(each, (0, c + more - dim)) for each in (proj_bias, fc2_bias))

    def attend(self, x_BHWC: Tensor, out_BHWC: Tensor, launch: Launch, *, whole: bool) -> None:
        """(B, H, W, C), contiguous, H and W whole windows, into such another or itself; through the MLP too if ``whole``."""
        batch, height, width, _ = x_BHWC.shape
        dim, heads, window, eps = self._shape
        c, more, d, h = self._padded
        num_windows = batch * (height // window) * (width // window)
        self._attention[(-(-num_windows // launch.windows),)](
            x_BHWC, out_BHWC, self._qkv, self._bias, self._proj, self._proj_bias, self._fc1, self._fc2, self._fc2_bias,
            height, width, self._shift, num_windows,
            DIM=dim, HEADS=heads, WINDOW=window, EPS=eps, C_PAD=c, C_MORE=more, D_PAD=d, L_PAD=TOKENS, WINDOWS=launch.windows,
            PRECISION=self._precision, H_PAD=h, CHUNK=CHUNK, WHOLE=whole,
            num_warps=launch.num_warps, num_stages=launch.num_stages,
        )  # fmt: skip

    def mix(self, x_BHWC: Tensor, launch: Launch) -> None:
        """The MLP alone, in place."""
        dim, _, _, eps = self._shape
        c, more, _, h = self._padded
        num_tokens, block = x_BHWC.numel() // (c + more), TOKENS * launch.windows
        self._mlp[(-(-num_tokens // block),)](
            x_BHWC, self._fc1, self._fc2, self._fc2_bias, num_tokens,
            DIM=dim, EPS=eps, C_PAD=c, C_MORE=more, H_PAD=h, CHUNK=CHUNK, BLOCK=block, PRECISION=self._precision,
            num_warps=launch.num_warps, num_stages=launch.num_stages,
        )  # fmt: skip


def with_bias(weight: Tensor, bias: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """(in, out) with two rows that hold the bias, and zeros up to ``size`` rows."""
    whole = torch.cat([weight, rounded_and_rest(bias, dtype)])
    return F.pad(whole, (0, 0, 0, size - len(whole)))


def rounded_and_rest(bias: Tensor, dtype: torch.dtype) -> Tensor:
    """(2, size): what it is in ``dtype``, and the rest."""
    rounded = bias.to(dtype).to(bias.dtype)
    return torch.stack([rounded, bias - rounded])


def parts(size: int) -> tuple[int, int]:
    """Two powers of two, of 16 or more, the first the larger, that hold ``size`` together; the second is 0 where one does."""
    whole = power_of_two(size)
    rest = power_of_two(size - whole // 2)
    return (whole // 2, rest) if rest < whole // 2 else (whole, 0)


def head_width(part: int) -> int:
    """D_PAD for heads of ``part`` channels, with one more behind them."""
    return power_of_two(part + 1)
