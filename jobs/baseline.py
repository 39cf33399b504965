"""SwinIR computed the way the published code computes it, to measure against: what the network would cost unchanged."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ConfigError
from swinir.model import SwinIR


class ReferenceSwinIR(SwinIR):
    """What ``network`` computes, with its parameters, as JingyunLiang/SwinIR at 6545850 does it.

    For an input of another size than in training that is: in every block, shifted or not, an attention mask built on the CPU
    and copied to the device; windows rolled, cut out and put back in memory; scores, softmax and their product one by one.
    """

    def __init__(self, network: SwinIR) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(network.__dict__)

    def _body(self, shallow: Tensor) -> Tensor:
        window = self.config.window_size
        x_BHWC = self.patch_embed.norm(shallow.permute(0, 2, 3, 1).contiguous())
        groups: list[Any] = list(self.layers)
        for group in groups:
            skip = x_BHWC
            for index, block in enumerate(group.residual_group.blocks):
                x_BHWC = run_block(block, x_BHWC, window, window // 2 if index % 2 else 0)
            x_BHWC = skip + group.conv(x_BHWC.permute(0, 3, 1, 2).contiguous()).permute(0, 2, 3, 1)
        body: Tensor = self.norm(x_BHWC).permute(0, 3, 1, 2).contiguous()
        return body


def run_block(block: Any, x_BHWC: Tensor, window: int, shift: int) -> Tensor:  # noqa: ANN401 - attributes of a torch module
    """One Swin transformer layer."""
    batch, height, width, dim = x_BHWC.shape
    mask_NLL = window_mask(height, width, window, shift).to(x_BHWC.device)
    rolled = block.norm1(x_BHWC).roll((-shift, -shift), dims=(1, 2))
    windows_NLC = partition(rolled, window)
    attended = attend(block.attn, windows_NLC, mask_NLL)
    grid = attended.view(batch, height // window, width // window, window, window, dim)
    image = grid.permute(0, 1, 3, 2, 4, 5).reshape(batch, height, width, dim)
    x_BHWC = x_BHWC + image.roll((shift, shift), dims=(1, 2))
    out: Tensor = x_BHWC + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x_BHWC))))
    return out


def partition(x_BHWC: Tensor, window: int) -> Tensor:
    """The windows of images, row by row, as (N, L, C)."""
    batch, height, width, dim = x_BHWC.shape
    grid = x_BHWC.view(batch, height // window, window, width // window, window, dim)
    return grid.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, window * window, dim)


def attend(attn: Any, x_NLC: Tensor, mask_NLL: Tensor) -> Tensor:  # noqa: ANN401 - attributes of a torch module
    """Window attention with every step in memory."""
    num, tokens, dim = x_NLC.shape
    heads = attn.num_heads
    qkv = attn.qkv(x_NLC).reshape(num, tokens, 3, heads, dim // heads).permute(2, 0, 3, 1, 4)
    scores = (qkv[0] * (dim // heads) ** -0.5) @ qkv[1].transpose(-2, -1)
    bias = attn.relative_position_bias_table[attn.relative_position_index].view(tokens, tokens, heads)
    scores = scores + bias.permute(2, 0, 1).contiguous()[None]
    kinds = len(mask_NLL)
    scores = (scores.view(num // kinds, kinds, heads, tokens, tokens) + mask_NLL[None, :, None]).view(
        num, heads, tokens, tokens
    )
    out: Tensor = attn.proj((F.softmax(scores, dim=-1) @ qkv[2]).transpose(1, 2).reshape(num, tokens, dim))
    return out


def window_mask(height: int, width: int, window: int, shift: int) -> Tensor:
    """(windows of one image, L, L): -100 between pixels that the roll brought together, as drawn and cut out of an image."""
    regions = torch.zeros(1, height, width, 1)
    spans = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
    for index, (rows, columns) in enumerate((rows, columns) for rows in spans for columns in spans):
        regions[:, rows, columns] = index
    windows = partition(regions, window).squeeze(-1)
    differ = windows[:, None, :] - windows[:, :, None]
    return differ.masked_fill(differ != 0, -100.0).masked_fill(differ == 0, 0.0)


def published_network(checkout: Path, network: SwinIR) -> nn.Module:
    """The published class itself, from a checkout that the user has, with the parameters of ``network``.

    Raises ConfigError where the folder holds no such class or it does not take these parameters.
    """
    sys.path.insert(0, str(checkout))
    try:
        published = importlib.import_module("models.network_swinir").SwinIR
        config = network.config
        theirs: nn.Module = published(
            img_size=64, in_chans=config.in_chans, depths=list(config.depths), embed_dim=config.embed_dim,
            num_heads=list(config.num_heads), window_size=config.window_size, mlp_ratio=config.mlp_ratio,
            upscale=config.upscale, img_range=config.img_range, upsampler=config.upsampler,
            resi_connection=config.resi_connection,
        )  # fmt: skip
        missing, unexpected = theirs.load_state_dict(network.state_dict(), strict=False)
    except (ImportError, AttributeError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"{checkout} is no usable checkout of JingyunLiang/SwinIR ({reason}); it and timm are needed"
        ) from error
    finally:
        sys.path.remove(str(checkout))
    wrong = [*unexpected, *(name for name in missing if not name.endswith(("attn_mask", "relative_position_index")))]
    if wrong:
        raise ConfigError(f"the network of {checkout} has other parameters, such as {wrong[0]}; check out commit 6545850")
    return theirs.eval()
