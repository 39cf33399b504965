"""SwinIR on a GPU with each block as two Triton kernels or as one, and what is around the blocks in one each."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swinir.agreement import power_of_two
from swinir.gpu.ordered import DirectBlock, fits
from swinir.gpu.packing import LAUNCHES, ONES, Launch, PackedBlock, parts
from swinir.model import SwinIR

PIXELS = 64  # of a row, at least, that a program of the first convolution takes, or of the last
JOINED = 4096  # values that a program between blocks and convolutions holds of each tensor, or somewhat more
MAX_PLACES = 2**31  # of a batch: the kernels count in 32 bits
MAX_PROGRAMS = 2**16  # images, rows of windows or parts of rows: a grid has fewer
LAST = {"": "conv_last", "pixelshuffledirect": "upsample"}  # the heads that are one convolution


class TritonSwinIR(SwinIR):
    """What ``network``, which is in float32, computes with its body in ``dtype``, by the kernels. For inference.

    If that is bfloat16, what a head is given is rounded to float16; where it is more than that holds, no numbers come out.
    ``attention`` and ``mlp`` say how each of the two is launched; where ``mlp`` is None the first does all of a block, and may
    be one of DIRECT_LAUNCHES if the network ``fits``. Raises ImportError without Triton.
    """

    def __init__(self, network: SwinIR, dtype: torch.dtype, attention: Launch = LAUNCHES[0], mlp: Launch | None = None) -> None:
        torch.nn.Module.__init__(self)
        rounded = copy.deepcopy(network).set_body_dtype(dtype)
        self.__dict__.update(rounded.to(memory_format=torch.channels_last).__dict__)  # type: ignore[call-overload]
        self._dim, self.width = self.config.embed_dim, sum(parts(self.config.embed_dim + ONES))
        self.attention, self.mlp = attention, mlp
        window, kind = self.config.window_size, DirectBlock if attention.direct else PackedBlock
        assert fits(self.config) or not attention.direct
        self._plain = (rounded,)  # not as a part of this network
        self._first = First(network, "ieee" if dtype == torch.float32 else "tf32x3")
        self.groups: list[tuple[list[PackedBlock], nn.Module, Join]] = []
        for i, (exact, group) in enumerate(zip(network.layers, rounded.layers, strict=True), 1):
            blocks: Any = exact.residual_group.blocks  # type: ignore[union-attr]
            packed_blocks = [kind(block, i % 2 == 1, window, dtype) for i, block in enumerate(blocks)]
            conv, bias = widened(group.conv, self._dim, self.width), last_bias(exact.conv)  # type: ignore[arg-type]
            join = Join(bias, network.norm if i == len(network.layers) else None)
            self.groups.append((packed_blocks, unbiased(conv), join))
        conv = widened(rounded.conv_after_body, self._dim, self.width)
        self._modules = self._modules | {"conv_after_body": unbiased(conv)}
        # What PyTorch multiplies for a head in float32 on a GPU, it first rounds to TF32, of as many digits as float16.
        self._features_dtype = torch.float32 if dtype == torch.float32 else torch.float16
        self._last: Last | None = None
        if self.config.upsampler in LAST:
            self._last = Last(network, self._features_dtype)
        else:
            before: Any = widened(rounded.conv_before_upsample, self._dim, self.width, outputs=False)
            self._modules = self._modules | {"conv_before_upsample": nn.Sequential(*before.to(self._features_dtype), AsFloat())}

    def forward(self, x: Tensor) -> Tensor:
        window = self.config.window_size
        batch, rows, cols = x.shape[0], -(-x.shape[2] // window), -(-x.shape[3] // window)
        programs = max(batch, rows, cols * window // PIXELS + 1)
        if batch * rows * cols * window**2 * self.width >= MAX_PLACES or programs >= MAX_PROGRAMS:
            output: Tensor = self._plain[0](x)
            return output
        return super().forward(x)

    def _upscaled(self, x: Tensor) -> Tensor:
        x = x.contiguous()
        features = self._features(x)
        if self._last is None:
            return self._enlarged(features, x)  # of a head that does not look at x
        with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
            made = self._last(channels_last(features))
        return made if self.config.upsampler else x + made

    def _features(self, x: Tensor) -> Tensor:
        """With its channels padded; ``x`` is contiguous, in the range of pictures."""
        batch, _, height, width = x.shape
        # Channels last all the way, so that nothing is copied to change the layout.
        x_BHWC = x.new_empty((batch, height, width, self.width), dtype=self.norm.weight.dtype)
        y_BHWC = torch.empty_like(x_BHWC)
        # Triton launches on the current device, wherever the tensors are.
        with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
            self._first(x, x_BHWC)
            for blocks, conv, join in self.groups:
                before = x_BHWC
                for block in blocks:
                    block.attend(before, y_BHWC, self.attention, whole=self.mlp is None)
                    if self.mlp:
                        block.mix(y_BHWC, self.mlp)
                    before = y_BHWC
                join(x_BHWC, channels_last(conv(y_BHWC.permute(0, 3, 1, 2))))
            features_BHWC = y_BHWC.view(self._features_dtype)  # of as many bytes, and y is done with
            # The first convolution a second time: what it gave, in float32, would be more to write and read than all else.
            self._first.again(x, channels_last(self.conv_after_body(x_BHWC.permute(0, 3, 1, 2))), features_BHWC)
        return features_BHWC.permute(0, 3, 1, 2)


def pixels_of(channels: int) -> int:
    """Of a row that a program of the first convolution takes, or of the last, with so many channels and sums a pixel: as many
    as need no more registers than there are.
    """
    return 2 * PIXELS if channels <= 96 else PIXELS


class First:
    """The first convolution, the LayerNorm behind it and the bias behind the body, as ``first_kernel`` and ``again_kernel``
    read them: padded, in float32.
    """

    @torch.no_grad()
    def __init__(self, network: SwinIR, precision: str) -> None:
        from swinir.gpu.ends import again_kernel, first_kernel

        conv, norm, after = network.conv_first, network.patch_embed.norm, last_bias(network.conv_after_body)
        self._kernel, self._again, self._eps, self._precision = first_kernel, again_kernel, norm.eps, precision
        self._dim, self._chans = conv.weight.shape[:2]
        self._parts, factors = parts(self._dim + ONES), 9 * self._chans
        self._factors = power_of_two(factors)
        self._block = pixels_of(self._factors + sum(self._parts))
        more = sum(self._parts) - self._dim
        self._weight = F.pad(conv.weight.reshape(self._dim, factors).T, (0, more, 0, self._factors - factors)).contiguous()
        self._bias = F.pad(torch.stack([last_bias(conv), norm.weight, norm.bias, after]), (0, more))
        self._mean = F.pad(network.mean.flatten().repeat_interleave(9), (0, self._factors - factors))
        self._range = network.config.img_range

    def __call__(self, x_BSHW: Tensor, out_BHWC: Tensor) -> None:
        """(B, S, H, W) float32 in the range of pictures through the convolution and the norm into ``out``; all contiguous, all
        that has channels last padded.
        """
        batch, _, height, width = x_BSHW.shape
        c, more = self._parts
        self._kernel[height, -(-width // self._block), batch](
            x_BSHW, self._mean, self._weight, self._bias, out_BHWC, height, width,
            S=self._chans, P=self._factors, DIM=self._dim, EPS=self._eps, C_PAD=c, C_MORE=more, BLOCK=self._block,
            RANGE=self._range, PRECISION=self._precision, num_warps=4,
        )  # fmt: skip

    def again(self, x_BSHW: Tensor, y_BHWC: Tensor, out_BHWC: Tensor) -> None:
        """The same through the convolution, + the bias behind the body + ``y``, into ``out``."""
        batch, _, height, width = x_BSHW.shape
        c, more = self._parts
        self._again[height, -(-width // self._block), batch](
            x_BSHW, self._mean, self._weight, self._bias, y_BHWC, out_BHWC, height, width,
            S=self._chans, P=self._factors, ALL=c + more, CHUNK=min(more or c, 64), BLOCK=self._block, RANGE=self._range,
            PRECISION=self._precision, num_warps=4,
        )  # fmt: skip


class Last:
    """The last convolution, and the pixel shuffle behind it if there is one, as ``last_kernel`` reads them: padded."""

    @torch.no_grad()
    def __init__(self, network: SwinIR, dtype: torch.dtype) -> None:
        from swinir.gpu.ends import last_kernel

        self._kernel, self._range = last_kernel, network.config.img_range
        head = network.get_submodule(LAST[network.config.upsampler])
        self._precision = "ieee" if dtype == torch.float32 else "tf32"  # which says nothing to float16
        (conv,) = (each for each in head.modules() if isinstance(each, nn.Conv2d))
        shuffles = [each.upscale_factor for each in head.modules() if isinstance(each, nn.PixelShuffle)]
        self._scale, (self._num, dim) = math.prod(shuffles), conv.weight.shape[:2]
        c, more = parts(dim + ONES)
        self._width, self._chunk = c + more, min(more or c, 64)
        sums = power_of_two(self._num)
        self._block, padding = pixels_of(self._width + sums), sums - self._num
        weight = F.pad(conv.weight.permute(2, 3, 1, 0), (0, padding, 0, self._width - dim))  # rows, columns, in, out
        # Restoration adds to the picture, in which the mean is.
        mean = network.mean.flatten().repeat_interleave(self._scale**2) * bool(network.config.upsampler)
        self._weight, self._bias = weight.to(dtype).contiguous(), F.pad(torch.stack([last_bias(conv), mean]), (0, padding))

    def __call__(self, x_BHWC: Tensor) -> Tensor:
        """(B, H, W, C), padded, to (B, colours, H * scale, W * scale) float32 in the range of pictures."""
        batch, height, width, _ = x_BHWC.shape
        scale = self._scale
        out = x_BHWC.new_empty((batch, self._num // scale**2, height * scale, width * scale), dtype=torch.float32)
        self._kernel[height, -(-width // self._block), batch](
            x_BHWC, self._weight, self._bias, out, height, width,
            SCALE=scale, NUM=self._num, OUT=self._bias.shape[1], ALL=self._width, CHUNK=self._chunk, BLOCK=self._block,
            RANGE=self._range, PRECISION=self._precision, num_warps=4,
        )  # fmt: skip
        return out


class AsFloat(nn.Module):
    """Behind a convolution in float16, for those in float32."""

    def forward(self, x: Tensor) -> Tensor:
        return x.float()


class Join:
    """The bias of a convolution that runs without, and a LayerNorm, as ``join_kernel`` reads them: padded, in float32."""

    @torch.no_grad()
    def __init__(self, bias: Tensor, norm: nn.LayerNorm | None = None) -> None:
        from swinir.gpu.ends import join_kernel

        self._kernel, self.dim, self._norm = join_kernel, len(bias), norm is not None
        self._parts, self._eps = parts(self.dim + ONES), norm.eps if norm else 0.0
        rows = torch.stack([bias, norm.weight, norm.bias] if norm else [bias])
        self._bias = F.pad(rows, (0, sum(self._parts) - self.dim))

    def __call__(self, x_BHWC: Tensor, y_BHWC: Tensor) -> None:
        """``x`` becomes ``x`` + bias + ``y``, through the norm; both padded and contiguous."""
        c, more = self._parts
        num_tokens, block = x_BHWC.shape[:3].numel(), max(1, JOINED // c)
        self._kernel[(-(-num_tokens // block),)](
            x_BHWC, y_BHWC, self._bias, num_tokens,
            DIM=self.dim, EPS=self._eps, C_PAD=c, C_MORE=more, BLOCK=block, NORM=self._norm, num_warps=4,
        )  # fmt: skip


def channels_last(x: Tensor) -> Tensor:
    """(B, H, W, C), contiguous, which on a GPU is how a convolution left it."""
    return x.permute(0, 2, 3, 1).contiguous()


def last_bias(convs: nn.Module) -> Tensor:
    """Of the last convolution."""
    *_, bias = (conv.bias for conv in convs.modules() if isinstance(conv, nn.Conv2d))
    assert bias is not None
    return bias.detach()


def unbiased(convs: nn.Module) -> nn.Module:
    """``convs``, changed to leave out the bias of the last convolution: PyTorch adds it in a kernel of its own."""
    *_, conv = (conv for conv in convs.modules() if isinstance(conv, nn.Conv2d))
    conv.bias = None
    return convs


@torch.no_grad()
def widened(convs: nn.Module, dim: int, width: int, *, outputs: bool = True) -> nn.Module:
    """A copy for ``width`` channels instead of ``dim``; what is more of them is not looked at. If ``outputs`` it also gives as
    many, what is more as 0.

    On Hopper convolutions in 16 bits want channels in whole 16 bytes.
    """
    wide = copy.deepcopy(convs)
    for conv in wide.modules():
        if isinstance(conv, nn.Conv2d) and conv.bias is not None:
            more_out = width - dim if outputs and conv.out_channels == dim else 0
            more_in = width - dim if conv.in_channels == dim else 0
            weight = F.pad(conv.weight, (0, 0, 0, 0, 0, more_in, 0, more_out))
            conv.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last), requires_grad=False)
            conv.bias = nn.Parameter(F.pad(conv.bias, (0, more_out)), requires_grad=False)
    return wide
