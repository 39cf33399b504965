"""The SwinIR network, top to bottom, under the published parameter names.

Liang et al., "SwinIR: Image Restoration Using Swin Transformer", 2021, arXiv 2108.10257: shallow convolution, residual
groups of Swin transformer layers (window attention, every second one on a grid shifted by half a window), a long skip, a
reconstruction head. Block and attention after Liu et al., "Swin Transformer", 2021, arXiv 2103.14030.

Shape legend, local to this file: B images, H rows, W columns, C channels; N windows over all images, L tokens in a window
(window_size ** 2), K attention heads, D channels per head; T tokens over all images (B * H * W), in *window order* between two
convolutions (``windows.py``).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swinir.windows import WindowLayout, pad_to_windows, relative_position_index, window_layout

Upsampler = Literal["", "pixelshuffle", "pixelshuffledirect", "nearest+conv"]

RGB_MEAN = (0.4488, 0.4371, 0.4040)
HEAD_FEATURES = 64


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SwinIRConfig:
    """The constructor arguments of the published networks, under the reference's names.

    ``depths`` and ``num_heads`` have one entry per residual group. ``img_range`` is what the [0, 1] input is multiplied by
    inside the network. ``upsampler`` "" means restoration at the same size, as a residual to the input.
    Raises ValueError where the values do not describe a network.
    """

    upscale: int = 1
    in_chans: int = 3
    depths: Sequence[int] = (6, 6, 6, 6, 6, 6)
    embed_dim: int = 180
    num_heads: Sequence[int] = (6, 6, 6, 6, 6, 6)
    window_size: int = 8
    mlp_ratio: float = 2.0
    img_range: float = 1.0
    upsampler: Upsampler = ""
    resi_connection: Literal["1conv", "3conv"] = "1conv"

    def __post_init__(self) -> None:
        object.__setattr__(self, "depths", tuple(self.depths))
        object.__setattr__(self, "num_heads", tuple(self.num_heads))
        if self.upsampler not in ("", "pixelshuffle", "pixelshuffledirect", "nearest+conv"):
            raise ValueError(f"unknown upsampler {self.upsampler!r}")
        if self.resi_connection not in ("1conv", "3conv"):
            raise ValueError(f"resi_connection must be '1conv' or '3conv', got {self.resi_connection!r}")
        if len(self.depths) != len(self.num_heads):
            raise ValueError(f"depths and num_heads must have one entry per group, got {self.depths} and {self.num_heads}")
        if any(self.embed_dim % heads for heads in self.num_heads):
            raise ValueError(f"embed_dim must be a multiple of every num_heads, got {self.embed_dim} and {self.num_heads}")
        if self.upsampler == "" and self.upscale != 1:
            raise ValueError(f"upscale {self.upscale} needs an upsampler")
        if self.upsampler == "nearest+conv" and self.upscale not in (2, 4):
            raise ValueError(f"nearest+conv exists for upscale 2 and 4, got {self.upscale}")
        if self.upsampler == "pixelshuffle" and self.upscale not in (2, 3, 4, 8):
            raise ValueError(f"pixelshuffle exists for upscale 2, 3, 4 and 8, got {self.upscale}")


class SwinIR(nn.Module):
    """(B, in_chans, H, W) float32 in [0, 1] -> (B, in_chans, H * upscale, W * upscale) float32, not clamped.

    Any H and W from 1: the input is padded right and bottom by reflection to whole windows, and the output cropped.
    """

    def __init__(self, config: SwinIRConfig) -> None:
        super().__init__()
        self.config = config
        dim, window_size = config.embed_dim, config.window_size
        self.conv_first = nn.Conv2d(config.in_chans, dim, 3, padding=1)
        self.patch_embed = PatchEmbed(dim)
        self.layers = nn.ModuleList(
            ResidualGroup(dim, depth, heads, window_size, config.mlp_ratio, config.resi_connection)
            for depth, heads in zip(config.depths, config.num_heads, strict=True)
        )
        self.norm = nn.LayerNorm(dim)
        self.conv_after_body = residual_conv(dim, config.resi_connection)
        self._add_head(config)
        mean = RGB_MEAN if config.in_chans == 3 else (0.0,) * config.in_chans
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)

    mean: Tensor  # (1, in_chans, 1, 1)

    def _add_head(self, config: SwinIRConfig) -> None:
        dim, chans = config.embed_dim, config.in_chans
        if config.upsampler == "pixelshuffledirect":
            self.upsample = nn.Sequential(
                nn.Conv2d(dim, config.upscale**2 * chans, 3, padding=1), nn.PixelShuffle(config.upscale)
            )
            return
        if config.upsampler == "":
            self.conv_last = nn.Conv2d(dim, chans, 3, padding=1)
            return
        self.conv_before_upsample = nn.Sequential(nn.Conv2d(dim, HEAD_FEATURES, 3, padding=1), nn.LeakyReLU(inplace=True))
        if config.upsampler == "pixelshuffle":
            self.upsample = shuffle_steps(config.upscale)
        else:
            self.conv_up1 = nn.Conv2d(HEAD_FEATURES, HEAD_FEATURES, 3, padding=1)
            if config.upscale == 4:
                self.conv_up2 = nn.Conv2d(HEAD_FEATURES, HEAD_FEATURES, 3, padding=1)
            self.conv_hr = nn.Conv2d(HEAD_FEATURES, HEAD_FEATURES, 3, padding=1)
        self.conv_last = nn.Conv2d(HEAD_FEATURES, chans, 3, padding=1)

    def set_body_dtype(self, dtype: torch.dtype) -> SwinIR:
        """Run the transformer body in ``dtype`` (float32 or bfloat16); both ends and the long skip stay float32 (TritonSwinIR
        rounds what the head is given).

        bfloat16 holds one 8-bit step near 1.0, so what carries the picture itself never passes through it.
        float16 overflows in this network and is refused.
        """
        if dtype not in (torch.float32, torch.bfloat16, torch.float64):
            raise ValueError(f"the body runs in float32 or bfloat16, got {dtype}")
        for part in (self.patch_embed, self.layers, self.norm, self.conv_after_body):
            part.to(dtype)
        return self

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = self._upscaled(pad_to_windows(x, self.config.window_size))
        return x[..., : height * self.config.upscale, : width * self.config.upscale]

    def _upscaled(self, x: Tensor) -> Tensor:
        """What becomes of the padded input."""
        x = (x - self.mean) * self.config.img_range
        return self._enlarged(self._features(x), x)

    def _enlarged(self, features: Tensor, x: Tensor) -> Tensor:
        """What becomes of features; ``x`` is for ``_head``."""
        with torch.autocast(x.device.type, enabled=False):
            x = self._head(features, x)
        return torch.add(self.mean, x, alpha=1 / self.config.img_range)  # in one pass over what is large

    def _features(self, x: Tensor) -> Tensor:
        """What the head is given, (B, C, H, W), of the padded input in the range of the network."""
        # Autocast, where the trainer has it on, is for the body alone: see set_body_dtype.
        with torch.autocast(x.device.type, enabled=False):
            shallow = self.conv_first(x)
        body = self._body(shallow)
        with torch.autocast(x.device.type, enabled=False):
            return self.conv_after_body(body).to(shallow.dtype) + shallow

    def _body(self, shallow: Tensor) -> Tensor:
        """The transformer body: (B, C, H, W) float32 in, the body's dtype out."""
        x = shallow.to(self.norm.weight.dtype)
        batch, _, height, width = x.shape
        plain = window_layout(batch, height, width, self.config.window_size, 0, x.device)
        shifted = window_layout(batch, height, width, self.config.window_size, self.config.window_size // 2, x.device)
        x = self.patch_embed.norm(x.permute(0, 2, 3, 1)).reshape(-1, x.shape[1])
        for group in self.layers:
            x = group(x, plain, shifted)
        return self.norm(x).to(self.norm.weight.dtype).view(batch, height, width, -1).permute(0, 3, 1, 2)

    def _head(self, features: Tensor, x: Tensor) -> Tensor:
        """Features (B, C, H, W) to pixels; ``x`` is the padded input, which restoration at the same size adds to."""
        match self.config.upsampler:
            case "":
                return x + self.conv_last(features)
            case "pixelshuffledirect":
                return self.upsample(features)
            case "pixelshuffle":
                return self.conv_last(self.upsample(self.conv_before_upsample(features)))
            case "nearest+conv":
                up = self.conv_before_upsample(features)
                up = F.leaky_relu(self.conv_up1(F.interpolate(up, scale_factor=2.0)), 0.2)
                if self.config.upscale == 4:
                    up = F.leaky_relu(self.conv_up2(F.interpolate(up, scale_factor=2.0)), 0.2)
                return self.conv_last(F.leaky_relu(self.conv_hr(up), 0.2))


class PatchEmbed(nn.Module):
    """The published name of the LayerNorm before the first group."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)


class ResidualGroup(nn.Module):
    """Transformer blocks on alternating grids, a convolution, a skip (the paper's RSTB): (T, C) in image order."""

    def __init__(self, dim: int, depth: int, num_heads: int, window_size: int, mlp_ratio: float, resi_connection: str) -> None:
        super().__init__()
        self.residual_group = BlockList(dim, depth, num_heads, window_size, mlp_ratio)
        self.conv = residual_conv(dim, resi_connection)

    def forward(self, x_TC: Tensor, plain: WindowLayout, shifted: WindowLayout) -> Tensor:
        skip = x_TC
        for index, block in enumerate(self.residual_group.blocks):
            layout = shifted if index % 2 else plain
            step = layout.from_other if index else layout.from_image
            x_TC = block(x_TC.index_select(0, step), layout)
        x_TC = x_TC.index_select(0, layout.to_image)
        batch, height, width = layout.image_shape
        x_BCHW = x_TC.view(batch, height, width, -1).permute(0, 3, 1, 2)
        return skip + self.conv(x_BCHW).permute(0, 2, 3, 1).reshape(skip.shape)


class BlockList(nn.Module):
    """The published name of a group's blocks."""

    def __init__(self, dim: int, depth: int, num_heads: int, window_size: int, mlp_ratio: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(dim, num_heads, window_size, mlp_ratio) for _ in range(depth))


class Block(nn.Module):
    """One Swin transformer layer: window attention, then an MLP, each behind a LayerNorm and a skip; (T, C)."""

    def __init__(self, dim: int, num_heads: int, window_size: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, num_heads, window_size)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x_TC: Tensor, layout: WindowLayout) -> Tensor:
        x_TC = x_TC + self.attn(self.norm1(x_TC), layout)
        return x_TC + self.mlp(self.norm2(x_TC))


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class WindowAttention(nn.Module):
    """Self-attention inside each window, with a learned bias per relative position; (T, C) in window order."""

    relative_position_index: Tensor  # (L * L,)

    def __init__(self, dim: int, num_heads: int, window_size: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.num_tokens = window_size**2
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window_size - 1) ** 2, num_heads))
        # Published checkpoints carry a copy of this buffer; the loader drops it.
        self.register_buffer("relative_position_index", relative_position_index(window_size).flatten(), persistent=False)

    def forward(self, x_TC: Tensor, layout: WindowLayout) -> Tensor:
        tokens, dim = x_TC.shape
        qkv = self.qkv(x_TC).view(-1, self.num_tokens, 3, self.num_heads, dim // self.num_heads)
        q_NKLD, k_NKLD, v_NKLD = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        bias_LLK = self.relative_position_bias_table.index_select(0, self.relative_position_index)
        bias_KLL = bias_LLK.view(self.num_tokens, self.num_tokens, -1).permute(2, 0, 1)
        runs = [
            self._attend(q_NKLD[start:stop], k_NKLD[start:stop], v_NKLD[start:stop], bias_KLL, mask_LL)
            for start, stop, mask_LL in layout.mask_runs
        ]
        out_NKLD = runs[0] if len(runs) == 1 else torch.cat(runs)
        return self.proj(out_NKLD.transpose(1, 2).reshape(tokens, dim))

    def _attend(self, q_NKLD: Tensor, k_NKLD: Tensor, v_NKLD: Tensor, bias_KLL: Tensor, mask_LL: Tensor | None) -> Tensor:
        bias_KLL = bias_KLL.to(q_NKLD.dtype)
        if mask_LL is not None:
            bias_KLL = bias_KLL + mask_LL.to(bias_KLL.dtype)
        if not self.training:
            return F.scaled_dot_product_attention(q_NKLD, k_NKLD, v_NKLD, attn_mask=bias_KLL[None])
        # With a bias that needs a gradient the fused kernels are out, and the fallback checks every row for being masked whole.
        scores_NKLL = (q_NKLD * q_NKLD.shape[-1] ** -0.5) @ k_NKLD.transpose(-1, -2) + bias_KLL
        return torch.softmax(scores_NKLL, dim=-1).to(v_NKLD.dtype) @ v_NKLD


def residual_conv(dim: int, resi_connection: str) -> nn.Module:
    """The convolution that ends a group: one 3x3, or a bottleneck of three (SwinIR-L)."""
    if resi_connection == "1conv":
        return nn.Conv2d(dim, dim, 3, padding=1)
    return nn.Sequential(
        nn.Conv2d(dim, dim // 4, 3, padding=1), nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(dim // 4, dim // 4, 1), nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(dim // 4, dim, 3, padding=1),
    )  # fmt: skip


def shuffle_steps(upscale: int) -> nn.Sequential:
    """Convolution and pixel shuffle, once for x3, log2(upscale) times for powers of two."""
    factors = [3] if upscale == 3 else [2] * int(math.log2(upscale))
    steps: list[nn.Module] = []
    for factor in factors:
        steps += [nn.Conv2d(HEAD_FEATURES, factor**2 * HEAD_FEATURES, 3, padding=1), nn.PixelShuffle(factor)]
    return nn.Sequential(*steps)
