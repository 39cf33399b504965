"""SwinIR with its blocks in the compiled kernel forwards and backwards, to train on a CPU."""

from __future__ import annotations

import ctypes
import itertools
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from swinir.agreement import has_gradients
from swinir.cpu.blocks import ENTRY_POINTS, address, addresses, as_read, kernel_for, shape_of
from swinir.model import SwinIR
from swinir.packed import TOKENS, packed

NUM_TENSORS = 9  # of a block, by ``packed``
LANES = 16  # of gradients.h
GRADIENTS = {torch.float32: "swinir_block_gradients", torch.bfloat16: "swinir_block_gradients_bf16"}


def trainable(network: SwinIR, dtype: torch.dtype = torch.float32) -> SwinIR:
    """The same network, to train, by the compiled kernel where that can be had and agrees, else the network itself.

    ``network`` has its parameters in float32 on the CPU and keeps them; its convolutions are left with their channels last.
    With bfloat16 as ``dtype`` the factors of products are rounded to that, of the gradients too, as autocast does it.
    """
    kernel = kernel_for(network.config, dtype)
    if kernel is None:
        return network
    if has_gradients(network.config, lambda each: TrainableSwinIR(each, kernel, dtype), dtype, torch.device("cpu")):
        return TrainableSwinIR(network, kernel, dtype)
    logging.getLogger("swinir").warning("the compiled gradients differ from PyTorch's on this machine; going on without them")
    return network


class TrainableSwinIR(SwinIR):
    """What ``network`` computes, and its gradients, by the kernel; its parameters are the network's."""

    def __init__(self, network: SwinIR, library: ctypes.CDLL, dtype: torch.dtype = torch.float32) -> None:
        torch.nn.Module.__init__(self)
        self.__dict__.update(network.to(memory_format=torch.channels_last).__dict__)  # type: ignore[call-overload]
        self._library, self._dtype = library, dtype

    def _body(self, shallow: Tensor) -> Tensor:
        x_BHWC = self.patch_embed.norm(shallow.permute(0, 2, 3, 1))
        groups: list[Any] = list(self.layers)
        for group in groups:
            blocks = group.residual_group.blocks
            with torch.autocast("cpu", enabled=False):
                tensors = [packed(block, i % 2 == 1, self.config.window_size) for i, block in enumerate(blocks)]
            heads, hidden = blocks[0].attn.num_heads, blocks[0].mlp.fc1.out_features
            kernel = Kernel(self._library, self._dtype, shape_of(x_BHWC, heads, self.config.window_size, hidden))
            y_BHWC = Blocks.apply(x_BHWC, kernel, *itertools.chain(*tensors))  # type: ignore[no-untyped-call]
            x_BHWC = x_BHWC + group.conv(y_BHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        body: Tensor = self.norm(x_BHWC).permute(0, 3, 1, 2)
        return body


class Kernel(NamedTuple):
    """The compiled kernel for weights of one type and images of one shape."""

    library: ctypes.CDLL
    dtype: torch.dtype
    shape: ctypes.Array[ctypes.c_int64]

    def run(self, x_BHWC: Tensor, blocks: Sequence[Sequence[Tensor]]) -> Tensor:
        """What each of N blocks, ``as_read``, makes of the image of the one before."""
        y_NBHWC = x_BHWC.new_empty((len(blocks), *x_BHWC.shape))
        step, pointers = ctypes.c_int64(x_BHWC.numel()), addresses(itertools.chain.from_iterable(blocks))
        run_blocks = getattr(self.library, ENTRY_POINTS[self.dtype])
        run_blocks(address(x_BHWC), address(y_NBHWC), step, self.shape, pointers, len(blocks), torch.get_num_threads())
        return y_NBHWC

    def gradients(self, x_BHWC: Tensor, y_NBHWC: Tensor, d_BHWC: Tensor, blocks: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Those of the tensors of N blocks, ``packed``, that made ``y_NBHWC`` of ``x_BHWC``.

        ``d_BHWC``, the gradient of what left the last one, is overwritten with that of what came in.
        """
        read = [as_read(block, self.dtype) for block in blocks]
        turned = [as_read((weight.t() for weight in block if weight.ndim == 2), self.dtype) for block in blocks]
        sizes = [sum(map(room_for, block)) for block in blocks]
        sums = d_BHWC.new_zeros((torch.get_num_threads(), sum(sizes)))
        getattr(self.library, GRADIENTS[self.dtype])(
            address(x_BHWC), address(y_NBHWC), ctypes.c_int64(x_BHWC.numel()), address(d_BHWC), self.shape,
            addresses(itertools.chain.from_iterable(read)), addresses(itertools.chain.from_iterable(turned)), len(blocks),
            address(sums), ctypes.c_int64(sums.shape[1]), len(sums),
        )  # fmt: skip
        parts = torch.split(sums.sum(dim=0), sizes)
        return [gradient for block, part in zip(blocks, parts, strict=True) for gradient in gradients_of(block, part)]


class Blocks(torch.autograd.Function):
    """The blocks of a group from image to image, (B, H, W, C) float32 in whole windows; ``tensors`` are ``packed``."""

    @staticmethod
    def forward(ctx: Any, x_BHWC: Tensor, kernel: Kernel, *tensors: Tensor) -> Tensor:  # noqa: ANN401 - holds what is set here
        x_BHWC = x_BHWC.contiguous()
        y_NBHWC = kernel.run(x_BHWC, [as_read(block, kernel.dtype) for block in by_block(tensors)])
        ctx.kernel = kernel
        ctx.save_for_backward(x_BHWC, y_NBHWC, *tensors)
        return y_NBHWC[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_BHWC: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x_BHWC, y_NBHWC, *tensors = ctx.saved_tensors
        d_BHWC = d_BHWC.clone(memory_format=torch.contiguous_format)
        d_tensors = ctx.kernel.gradients(x_BHWC, y_NBHWC, d_BHWC, by_block(tensors))
        return (d_BHWC, None, *d_tensors)


def by_block(tensors: Sequence[Tensor]) -> list[Sequence[Tensor]]:
    return [tensors[i : i + NUM_TENSORS] for i in range(0, len(tensors), NUM_TENSORS)]


def room_for(tensor: Tensor) -> int:
    """How many floats gradients.h has for the gradient of one of the tensors of ``packed``."""
    if tensor.ndim == 4:
        return tensor.numel()
    return (len(tensor) + 1) * (LANES if tensor.ndim == 1 else -(-tensor.shape[1] // TOKENS) * TOKENS)


def gradients_of(block: Sequence[Tensor], sums: Tensor) -> list[Tensor]:
    """The gradients of the tensors of ``packed``, out of the rows and lanes of gradients.h, where the position bias is last."""
    order = sorted(range(len(block)), key=lambda i: block[i].ndim == 4)
    parts = dict(zip(order, torch.split(sums, [room_for(block[i]) for i in order]), strict=True))

    def gradient(tensor: Tensor, part: Tensor) -> Tensor:
        if tensor.ndim == 4:
            return part.view(tensor.shape)
        rows = part.view(len(tensor) + 1, -1)[:-1]
        return rows.sum(dim=1) if tensor.ndim == 1 else rows[:, : tensor.shape[1]]

    return [gradient(tensor, parts[i]) for i, tensor in enumerate(block)]
