"""SwinIR on a CPU with the blocks of each group in one compiled kernel, ``blocks.cpp``."""

from __future__ import annotations

import copy
import ctypes
import itertools
import logging
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from swinir.cpu.compiled import block_kernel
from swinir.model import ResidualGroup, SwinIR, SwinIRConfig
from swinir.packed import TOKENS, packed

ENTRY_POINTS = {torch.float32: "swinir_run_blocks", torch.bfloat16: "swinir_run_blocks_bf16"}


def fused(network: SwinIR, dtype: torch.dtype = torch.float32) -> SwinIR:
    """The same network by the compiled kernel where that can be had and agrees, else the network itself.

    ``network`` is in float32 on the CPU, in evaluation mode. With bfloat16 as ``dtype`` the factors of its products are
    rounded to that, which is for processors that ``multiplies_bfloat16``. Its convolutions are left with their channels last.
    """
    kernel = kernel_for(network.config, dtype)
    if kernel is None:
        return network
    faster = FusedSwinIR(network, kernel, dtype)
    shape, seeded = (1, network.config.in_chans, 16, 24), torch.Generator("cpu").manual_seed(0)
    x = torch.rand(shape, generator=seeded, dtype=torch.float32, device="cpu")
    with torch.inference_mode():
        truth = network(x)
        # A compiler may be wrong about a processor; a wrong kernel is off by tenths.
        tolerance = 1e-3 if dtype == torch.float32 else 5e-2
        if (faster(x) - truth).abs().max() <= tolerance * max(1.0, float(truth.abs().max())):
            return faster
    logging.getLogger("swinir").warning("the compiled blocks differ from PyTorch's on this machine; going on without them")
    return network


def kernel_for(config: SwinIRConfig, dtype: torch.dtype) -> ctypes.CDLL | None:
    """The compiled kernel, where it can be had, has room for such windows and has a way for ``dtype``."""
    odd = any(config.embed_dim // heads % 2 for heads in config.num_heads)  # in bfloat16 channels go by two
    if config.window_size**2 > TOKENS or (dtype == torch.bfloat16 and (odd or not multiplies_bfloat16())):
        return None
    return block_kernel()


def multiplies_bfloat16() -> bool:
    """Whether the compiled kernel has a way for bfloat16, as it does where the processor multiplies that by itself."""
    kernel = block_kernel()
    return kernel is not None and hasattr(kernel, ENTRY_POINTS[torch.bfloat16]) and bool(kernel.swinir_multiplies_bf16())


class FusedSwinIR(SwinIR):
    """What ``network`` computes, by the kernel; shares its parameters, and takes a copy of the blocks'.

    On the CPU, for inference. In float32 it differs from the network by rounding only: 1e-5 at most on the published goldens.
    In bfloat16 the factors of products in the blocks are rounded to 8 bits, and what the convolutions of the body take and
    give; sums, norms and what is carried from block to block and from group to group stay float32.
    """

    def __init__(self, network: SwinIR, library: ctypes.CDLL, dtype: torch.dtype = torch.float32) -> None:
        torch.nn.Module.__init__(self)
        # What the kernel does not do, PyTorch does a third faster with the channels of a pixel side by side.
        self.__dict__.update(network.to(memory_format=torch.channels_last).__dict__)  # type: ignore[call-overload]
        self._run_blocks = getattr(library, ENTRY_POINTS[dtype])
        groups: list[Any] = list(self.layers)
        self._groups = [(PackedGroup(group, self.config.window_size, dtype), in_dtype(group.conv, dtype)) for group in groups]
        self._modules = self._modules | {"conv_after_body": in_dtype(network.conv_after_body, dtype)}
        self._dtype = dtype

    @torch.no_grad()
    def _body(self, shallow: Tensor) -> Tensor:
        x_BHWC = self.patch_embed.norm(shallow.permute(0, 2, 3, 1)).contiguous()
        y_BHWC = torch.empty_like(x_BHWC)  # two for all groups: memory that is new has to be cleared by the system
        for blocks, conv in self._groups:
            blocks.run(self._run_blocks, x_BHWC, y_BHWC)
            convolved_BCHW = conv(y_BHWC.to(self._dtype).permute(0, 3, 1, 2))
            x_BHWC, y_BHWC = torch.add(x_BHWC, convolved_BCHW.permute(0, 2, 3, 1), out=y_BHWC), x_BHWC
        body: Tensor = self.norm(x_BHWC).to(self._dtype).permute(0, 3, 1, 2)
        return body


def in_dtype(conv: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """A convolution of the body: itself, or a copy in bfloat16."""
    return conv if dtype == torch.float32 else copy.deepcopy(conv).to(dtype)


class PackedGroup:
    """The parameters of a group's blocks as the kernel reads them; weights in ``dtype``, all else in float32."""

    def __init__(self, group: ResidualGroup, window_size: int, dtype: torch.dtype) -> None:
        blocks: list[Any] = list(group.residual_group.blocks)
        with torch.no_grad():
            self._tensors = [as_read(packed(block, i % 2 == 1, window_size), dtype) for i, block in enumerate(blocks)]
        self._pointers = addresses(itertools.chain.from_iterable(self._tensors))
        self._heads, self._hidden, self._window = blocks[0].attn.num_heads, blocks[0].mlp.fc1.out_features, window_size

    def run(self, run_blocks: Callable[..., object], x_BHWC: Tensor, y_BHWC: Tensor) -> None:
        """(B, H, W, C) float32, contiguous, H and W whole windows, to the same."""
        shape = shape_of(x_BHWC, self._heads, self._window, self._hidden)
        in_place, num_blocks = ctypes.c_int64(0), len(self._tensors)
        run_blocks(address(x_BHWC), address(y_BHWC), in_place, shape, self._pointers, num_blocks, torch.get_num_threads())


def shape_of(x_BHWC: Tensor, heads: int, window_size: int, hidden: int) -> ctypes.Array[ctypes.c_int64]:
    """``Shape`` of window.h."""
    return (ctypes.c_int64 * 7)(*x_BHWC.shape, heads, window_size, hidden)


def address(tensor: Tensor) -> ctypes.c_void_p:
    """Where its memory begins, which has to outlive what reads it."""
    return ctypes.c_void_p(tensor.data_ptr())


def addresses(tensors: Iterable[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    pointers = [address(tensor) for tensor in tensors]
    return (ctypes.c_void_p * len(pointers))(*pointers)


def as_read(tensors: Iterable[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """The tensors of ``packed`` as the kernel reads them: weights in ``dtype``, all else in float32."""
    return [(factors(tensor, dtype) if tensor.ndim == 2 else tensor).contiguous() for tensor in tensors]


def factors(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """(out, in) in ``dtype``; bfloat16 filled up with 0 to what products.h takes, twice 16 rows by 32."""
    rows, columns = weight.shape
    return weight if dtype == torch.float32 else F.pad(weight, (0, -columns % 32, 0, -rows % 32)).to(dtype)
