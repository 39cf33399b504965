"""SwinIR on a GPU with each block as two Triton kernels, where those are at hand, agree and win."""

from __future__ import annotations

import copy
import logging
import statistics
import time
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from swinir.blocks import TOKENS, packed
from swinir.model import Block, SwinIR

BLOCK = 64  # tokens that one program of the MLP takes
CHUNK = 64  # hidden channels it holds at once
WARPS = (8, 4, 16)  # of a program: which is best is found by trying
TRIAL_PX = 256  # length of the picture that the ways are timed on


def by_triton(network: SwinIR, rounded: SwinIR) -> SwinIR:
    """``rounded`` by the kernels where Triton can be had, their result agrees and comes sooner; else ``rounded`` itself.

    ``network`` is in float32 on a CUDA device, in evaluation mode; ``rounded`` the same with its body in bfloat16.
    """
    if network.config.window_size**2 > TOKENS:
        return rounded
    log = logging.getLogger("swinir")
    device = network.mean.device
    x = torch.rand((1, network.config.in_chans, TRIAL_PX, TRIAL_PX), generator=torch.Generator().manual_seed(0)).to(device)
    best, best_s = rounded, seconds(rounded, x)
    for num_warps in WARPS:
        try:
            faster = TritonSwinIR(network, torch.bfloat16, num_warps)
            with torch.inference_mode():
                error = float((faster(x) - rounded(x)).abs().max())
        # A compiler that knows not this processor, or a launch that wants more memory than it has: they fail in many ways.
        except Exception as failure:  # noqa: BLE001
            log.info("no Triton kernels of %d warps here: %s", num_warps, " ".join(str(failure).split())[:300])
            continue
        # Both round to bfloat16, each in its own places; a wrong kernel is off by tenths.
        if error > 0.05:
            log.warning("the Triton kernels differ from PyTorch's on this machine; going on without them")
            return rounded
        if (taken_s := seconds(faster, x)) < best_s:
            best, best_s = faster, taken_s
    return best


@torch.inference_mode()
def seconds(network: SwinIR, x: Tensor, rounds: int = 5) -> float:
    """The median time of a forward pass."""
    taken = []
    for _ in range(rounds):
        torch.cuda.synchronize(x.device)
        started = time.perf_counter()
        network(x)
        torch.cuda.synchronize(x.device)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


class TritonSwinIR(SwinIR):
    """What ``network``, which is in float32, computes with its body in ``dtype``, by the kernels. For inference.

    Raises ImportError without Triton.
    """

    def __init__(self, network: SwinIR, dtype: torch.dtype, num_warps: int = 8) -> None:
        torch.nn.Module.__init__(self)
        rounded = copy.deepcopy(network).set_body_dtype(dtype)
        self.__dict__.update(rounded.to(memory_format=torch.channels_last).__dict__)  # type: ignore[call-overload]
        groups: list[Any] = list(copy.deepcopy(network).cpu().layers)
        blocks = [list(group.residual_group.blocks) for group in groups]
        like = torch.empty(0, dtype=dtype, device=network.mean.device)
        window = self.config.window_size
        self._blocks = [
            [PackedBlock(one, i % 2 == 1, window, like, num_warps) for i, one in enumerate(many)] for many in blocks
        ]

    def _body(self, shallow: Tensor) -> Tensor:
        # Channels last all the way, so that nothing is copied to change the layout.
        x_BHWC = self.patch_embed.norm(shallow.to(self.norm.weight.dtype).permute(0, 2, 3, 1).contiguous())
        groups: list[Any] = list(self.layers)
        for group, blocks in zip(groups, self._blocks, strict=True):
            y_BHWC = x_BHWC.clone()
            # Triton launches on the current device, wherever the tensors are.
            with torch.cuda.device_of(y_BHWC):  # type: ignore[no-untyped-call]
                for block in blocks:
                    block.run(y_BHWC)
            x_BHWC = x_BHWC + group.conv(y_BHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x_BCHW: Tensor = self.norm(x_BHWC).permute(0, 3, 1, 2)
        return x_BCHW


class PackedBlock:
    """The parameters of a float32 block on the CPU as the kernels read them: padded, weights of ``like``'s type and device."""

    @torch.no_grad()
    def __init__(self, block: Block, shifted: bool, window_size: int, like: Tensor, num_warps: int) -> None:
        from swinir.triton_kernels import attention_kernel, mlp_kernel

        self._attention, self._mlp, self._num_warps = attention_kernel, mlp_kernel, num_warps
        dim, heads, hidden = block.attn.proj.in_features, block.attn.num_heads, block.mlp.fc1.out_features
        self._shape = dim, heads, window_size, block.norm1.eps
        self._shift = window_size // 2 if shifted else 0
        self._precision = "ieee" if like.dtype == torch.float32 else "tf32"  # which says nothing to bfloat16
        c, d, h = padded(dim), padded(dim // heads), -(-hidden // CHUNK) * CHUNK
        self._padded = c, d, h
        qkv, qkv_bias, bias, proj, proj_bias, fc1, fc1_bias, fc2, fc2_bias = packed(block, shifted, window_size)
        part = dim // heads
        by_head = qkv.view(3, heads, part, dim).permute(1, 0, 3, 2)  # K, 3, C, D
        weights = (
            F.pad(by_head, (0, d - part, 0, c - dim)),
            F.pad(proj.view(dim, heads, part).permute(1, 2, 0), (0, c - dim, 0, d - part)),  # K, D, C
            F.pad(fc1.T, (0, h - hidden, 0, c - dim)),
            F.pad(fc2.T, (0, c - dim, 0, h - hidden)),
        )
        self._qkv, self._proj, self._fc1, self._fc2 = (weight.contiguous().to(like) for weight in weights)
        biases = (
            F.pad(qkv_bias.view(3, heads, part).transpose(0, 1), (0, d - part)),  # K, 3, D
            bias.transpose(-1, -2),  # kinds, K, queries, keys
            F.pad(proj_bias, (0, c - dim)),
            F.pad(fc1_bias, (0, h - hidden)),
            F.pad(fc2_bias, (0, c - dim)),
        )
        places = (each.contiguous().to(like.device) for each in biases)
        self._qkv_bias, self._bias, self._proj_bias, self._fc1_bias, self._fc2_bias = places

    def run(self, x_BHWC: Tensor) -> None:
        """(B, H, W, C), contiguous, H and W whole windows; changed in place."""
        batch, height, width, _ = x_BHWC.shape
        dim, heads, window, eps = self._shape
        c, d, h = self._padded
        self._attention[(batch * (height // window) * (width // window),)](
            x_BHWC, self._qkv, self._qkv_bias, self._bias, self._proj, self._proj_bias, height, width, self._shift,
            DIM=dim, HEADS=heads, WINDOW=window, EPS=eps, C_PAD=c, D_PAD=d, L_PAD=TOKENS, PRECISION=self._precision,
            num_warps=self._num_warps,
        )  # fmt: skip
        num_tokens = batch * height * width
        self._mlp[(-(-num_tokens // BLOCK),)](
            x_BHWC, self._fc1, self._fc1_bias, self._fc2, self._fc2_bias, num_tokens,
            DIM=dim, EPS=eps, C_PAD=c, H_PAD=h, CHUNK=CHUNK, BLOCK=BLOCK, PRECISION=self._precision,
            num_warps=self._num_warps,
        )  # fmt: skip


def padded(size: int) -> int:
    """The least power of two that holds ``size``, at least the 16 of a matrix unit."""
    return max(16, 1 << (size - 1).bit_length())
