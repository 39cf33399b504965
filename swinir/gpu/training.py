"""SwinIR to train on a GPU: tokens in raster order throughout, window attention by Triton kernels both ways."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from swinir.agreement import has_gradients, power_of_two, suits_triton
from swinir.gpu.graphs import brief
from swinir.model import Block, SwinIR
from swinir.packed import TOKENS

PROGRAMS = 44  # a head, of the backward kernel, each with a sum of the position bias of its own
NUM_WARPS = 4


def trainable(network: SwinIR, dtype: torch.dtype = torch.float32) -> SwinIR:
    """The same network, to train, by the kernels where Triton can be had and they agree, else the network itself.

    ``network`` has its parameters in float32 on a CUDA device and keeps them; the rest of bfloat16 is autocast's.
    """
    device = network.mean.device
    if not suits_triton(network):
        return network
    reason = "they differ from PyTorch on this machine"
    try:
        if has_gradients(network.config, RasterSwinIR, dtype, device, cast=True):
            return RasterSwinIR(network)
    # No Triton, no compiler for its launches, a processor that it knows not: they fail in many ways.
    except Exception as error:  # noqa: BLE001
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # a device that is lost says so here
        reason = brief(error)
    logging.getLogger("swinir").warning("training goes without its Triton kernels: %s", reason)
    return network


class RasterSwinIR(SwinIR):
    """What ``network`` computes, and its gradients; its parameters are the network's. Raises ImportError without Triton."""

    def __init__(self, network: SwinIR) -> None:
        import swinir.gpu.attention  # noqa: F401 - whether it can be had

        torch.nn.Module.__init__(self)
        # As the blocks have their tokens: or every convolution would copy what it gets.
        self.__dict__.update(network.to(memory_format=torch.channels_last).__dict__)  # type: ignore[call-overload]
        self.run_block: Callable[[Block, Tensor, int, int], Tensor] = run_block

    def _body(self, shallow: Tensor) -> Tensor:
        window = self.config.window_size
        x_BHWC = self.patch_embed.norm(shallow.permute(0, 2, 3, 1).contiguous())
        groups: list[Any] = list(self.layers)
        for group in groups:
            y_BHWC = x_BHWC
            for index, block in enumerate(group.residual_group.blocks):
                y_BHWC = self.run_block(block, y_BHWC, window, window // 2 if index % 2 else 0)
            x_BHWC = x_BHWC + group.conv(y_BHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        body: Tensor = self.norm(x_BHWC).permute(0, 3, 1, 2)
        return body


def run_block(block: Block, x_BHWC: Tensor, window: int, shift: int) -> Tensor:
    """A block of the network on whole images, (B, H, W, C), H and W in whole windows."""
    attn = block.attn
    table = attn.relative_position_bias_table.index_select(0, attn.relative_position_index)
    bias_KLL = table.view(attn.num_tokens, attn.num_tokens, -1).permute(2, 0, 1).float().contiguous()
    qkv = attn.qkv(block.norm1(x_BHWC)).contiguous()
    x_BHWC = x_BHWC + attn.proj(window_attention(qkv, bias_KLL, window, shift))
    mixed: Tensor = x_BHWC + block.mlp(block.norm2(x_BHWC))
    return mixed


@torch.library.custom_op("swinir::window_attention", mutates_args=())
def window_attention(qkv_BHWC: Tensor, bias_KLL: Tensor, window: int, shift: int) -> Tensor:
    """(B, H, W, 3 * C) to (B, H, W, C): attention inside the windows of a grid moved by ``shift``, with its position bias."""
    from swinir.gpu.attention import forward_kernel

    batch, height, width, channels = qkv_BHWC.shape
    out_BHWC = qkv_BHWC.new_empty((batch, height, width, channels // 3))
    grid = (batch * (height // window) * (width // window), len(bias_KLL))
    with torch.cuda.device_of(qkv_BHWC):  # type: ignore[no-untyped-call]  # Triton launches on the current device
        forward_kernel[grid](
            qkv_BHWC, bias_KLL, out_BHWC, height, width, shift, **constants(qkv_BHWC, bias_KLL, window), num_warps=NUM_WARPS
        )
    return out_BHWC


@window_attention.register_fake
def _(qkv_BHWC: Tensor, bias_KLL: Tensor, window: int, shift: int) -> Tensor:
    return qkv_BHWC.new_empty((*qkv_BHWC.shape[:3], qkv_BHWC.shape[3] // 3))


@torch.library.custom_op("swinir::window_attention_gradients", mutates_args=())
def window_attention_gradients(
    qkv_BHWC: Tensor, bias_KLL: Tensor, d_BHWC: Tensor, window: int, shift: int
) -> tuple[Tensor, Tensor]:
    """The gradients of ``qkv_BHWC`` and ``bias_KLL``, given that of the output."""
    from swinir.gpu.attention import backward_kernel

    batch, height, width, _ = qkv_BHWC.shape
    num_windows, heads = batch * (height // window) * (width // window), len(bias_KLL)
    programs = min(PROGRAMS, num_windows)
    d_qkv_BHWC = torch.empty_like(qkv_BHWC)
    d_bias_PKLL = bias_KLL.new_empty((programs, *bias_KLL.shape))
    with torch.cuda.device_of(qkv_BHWC):  # type: ignore[no-untyped-call]
        backward_kernel[(programs, heads)](
            qkv_BHWC, bias_KLL, d_BHWC, d_qkv_BHWC, d_bias_PKLL, height, width, shift, num_windows,
            **constants(qkv_BHWC, bias_KLL, window), num_warps=NUM_WARPS,
        )  # fmt: skip
    return d_qkv_BHWC, d_bias_PKLL.sum(dim=0)


@window_attention_gradients.register_fake
def _(qkv_BHWC: Tensor, bias_KLL: Tensor, d_BHWC: Tensor, window: int, shift: int) -> tuple[Tensor, Tensor]:
    return torch.empty_like(qkv_BHWC), torch.empty_like(bias_KLL)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, int, int], output: Tensor) -> None:  # noqa: ANN401 - holds what is set here
    qkv_BHWC, bias_KLL, ctx.window, ctx.shift = inputs
    ctx.save_for_backward(qkv_BHWC, bias_KLL)


def _gradients(ctx: Any, d_BHWC: Tensor) -> tuple[Tensor, Tensor, None, None]:  # noqa: ANN401
    d_qkv, d_bias = window_attention_gradients(*ctx.saved_tensors, d_BHWC.contiguous(), ctx.window, ctx.shift)
    return d_qkv, d_bias, None, None


window_attention.register_autograd(_gradients, setup_context=_keep)


def constants(qkv_BHWC: Tensor, bias_KLL: Tensor, window: int) -> dict[str, Any]:
    """What the kernels are compiled for."""
    dim, heads = qkv_BHWC.shape[3] // 3, len(bias_KLL)
    part = dim // heads
    return {
        "DIM": dim, "HEADS": heads, "WINDOW": window, "SCALE": part**-0.5, "D_PAD": power_of_two(part),
        "L_PAD": TOKENS, "PRECISION": "ieee" if qkv_BHWC.dtype == torch.float32 else "tf32",
    }  # fmt: skip
