"""SwinIR on a GPU with each block as two Triton kernels, where those are at hand, agree and win."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock
from torch import Tensor, nn
from torch.nn import functional as F

from swinir.blocks import TOKENS, packed
from swinir.graphs import Recorded
from swinir.model import Block, SwinIR
from swinir.weights import default_cache

log = logging.getLogger("swinir")

ONES = 2  # of triton_kernels.py, which can be imported only where Triton can
CHUNK = 64  # hidden channels that a program of the MLP holds at once


class Launch(NamedTuple):
    """How a program runs: its warps, its stages of loads ahead, and the windows that it takes, or as many tokens."""

    num_warps: int
    num_stages: int
    windows: int


# Compiled for Hopper none of them spills a register at 60 or 180 channels, and the last needs 192 KiB of shared memory there.
# Which is the fastest is found on the GPU at hand.
LAUNCHES = (Launch(4, 1, 1), Launch(4, 2, 1), Launch(4, 3, 1), Launch(8, 2, 2))
MARGIN = 0.95  # of PyTorch's time: what wins by less may lose the next time
CHECKED_SIZE = (72, 104)  # holds windows of every kind
TIMED_SIZE = 512  # 4096 windows: more than any GPU takes at once
MAX_PLACES = 2**31  # of a batch: the kernels count in 32 bits


def by_triton(network: SwinIR, rounded: SwinIR, cache: Path | None = None) -> nn.Module:
    """``rounded`` by the kernels where Triton can be had, their result agrees and comes sooner; else ``rounded`` itself.

    ``network`` is in float32 on a CUDA device, in evaluation mode; ``rounded`` the same with its body in bfloat16. What was
    found once for a type of GPU and an architecture is kept in ``cache``, the user's by default.
    """
    device = network.mean.device
    if network.config.window_size**2 > TOKENS:
        return rounded
    try:
        facts = [name_of(device), torch.__version__, repr(network.config), *sources()]
        key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
        path = (cache or default_cache()) / "kernels" / f"triton-{key}.json"
        launch = once(path, lambda: fastest(network, rounded))
        return Recorded(checked(network, rounded, Launch(*launch))) if launch else rounded
    # A compiler that knows not this processor, a launch that wants more memory than it has: they fail in many ways.
    except Exception as error:  # noqa: BLE001
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # a device that is lost says so here, and not at some later place
        log.warning("SwinIR runs without its Triton kernels: %s", " ".join(str(error).split())[:300])
        return rounded
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()


def fastest(network: SwinIR, rounded: SwinIR) -> Launch | None:
    """The launch that takes the least time among those that work; None where PyTorch takes less or hardly more.

    Raises what the last of them failed with where none works.
    """
    x = torch.rand((1, network.config.in_chans, TIMED_SIZE, TIMED_SIZE), device=network.mean.device)
    failure: Exception | None = None
    ratios: dict[Launch, float] = {}
    for launch in LAUNCHES:
        try:
            ratios[launch] = seconds_ratio(checked(network, rounded, launch), rounded, x)
        except Exception as error:  # noqa: BLE001 - as many ways
            log.info("Triton kernels with %s: %s", launch, " ".join(str(error).split())[:300])
            failure = error
    if not ratios and failure:
        raise failure
    best = min(ratios, key=ratios.__getitem__)
    return best if ratios[best] < MARGIN else None


def checked(network: SwinIR, rounded: SwinIR, launch: Launch) -> SwinIR:
    """``rounded`` by the kernels. Raises ArithmeticError where the result is another."""
    faster = TritonSwinIR(network, torch.bfloat16, launch)
    if not agrees(network, rounded, faster):
        raise ArithmeticError("they differ from PyTorch on this machine")
    return faster


def sources() -> list[str]:
    """What a choice holds for: other kernels are measured anew."""
    return [Path(__file__).with_name(name).read_text() for name in ("triton_kernels.py", "triton_blocks.py")]


@torch.inference_mode()
def agrees(network: SwinIR, rounded: SwinIR, faster: SwinIR) -> bool:
    """Whether ``faster`` is about as far from float32 as ``rounded`` is; false where a value is not finite."""
    shape = (1, network.config.in_chans, *CHECKED_SIZE)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(network.mean.device)
    truth = network(x)
    errors = [float((each(x) - truth).square().mean().sqrt()) for each in (faster, rounded)]
    # Without its position bias, its weakest part, a network is at three times the error of bfloat16.
    return errors[0] <= 1.5 * errors[1]


@torch.inference_mode()
def seconds_ratio(faster: SwinIR, other: SwinIR, x: Tensor, rounds: int = 5) -> float:
    """The time of a forward pass as a part of another network's: medians, taken in turn after one that does not count."""
    taken: dict[SwinIR, list[float]] = {faster: [], other: []}
    for _ in range(rounds + 1):
        for network, times in taken.items():
            torch.cuda.synchronize(x.device)
            started = time.perf_counter()
            network(x)
            torch.cuda.synchronize(x.device)
            times.append(time.perf_counter() - started)
    first, second = (statistics.median(times[1:]) for times in taken.values())
    return first / second


def once(path: Path, find: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever JSON holds
    """What ``find`` said the first time that any process asked; what it says now where nothing can be kept."""
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.lock"):  # which also keeps two processes from timing at once
                if not path.exists():
                    path.write_text(json.dumps(find()))
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return find()


def name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


class TritonSwinIR(SwinIR):
    """What ``network``, which is in float32, computes with its body in ``dtype``, by the kernels. For inference.

    Raises ImportError without Triton.
    """

    def __init__(self, network: SwinIR, dtype: torch.dtype, launch: Launch = LAUNCHES[0]) -> None:
        torch.nn.Module.__init__(self)
        rounded = copy.deepcopy(network).set_body_dtype(dtype)
        self.__dict__.update(rounded.to(memory_format=torch.channels_last).__dict__)  # type: ignore[call-overload]
        self._dim, self._width = self.config.embed_dim, sum(parts(self.config.embed_dim + ONES))
        window = self.config.window_size
        self._groups: list[tuple[list[PackedBlock], nn.Module]] = []
        for exact, group in zip(network.layers, rounded.layers, strict=True):
            blocks: Any = exact.residual_group.blocks  # type: ignore[union-attr]
            packed_blocks = [PackedBlock(block, i % 2 == 1, window, dtype, launch) for i, block in enumerate(blocks)]
            self._groups.append((packed_blocks, widened(group.conv, self._dim, self._width)))  # type: ignore[arg-type]
        last = nn.Sequential(widened(rounded.conv_after_body, self._dim, self._width), FirstChannels(self._dim))
        self._modules = self._modules | {"conv_after_body": last}

    def _body(self, shallow: Tensor) -> Tensor:
        """With its channels padded."""
        dtype, more = self.norm.weight.dtype, self._width - self._dim
        if shallow.numel() // self._dim * self._width >= MAX_PLACES:
            return F.pad(super()._body(shallow), (0, 0, 0, 0, 0, more))
        # Channels last all the way, so that nothing is copied to change the layout.
        x_BHWC = F.pad(self.patch_embed.norm(shallow.to(dtype).permute(0, 2, 3, 1).contiguous()).to(dtype), (0, more))
        for blocks, conv in self._groups:
            y_BHWC = x_BHWC.clone(memory_format=torch.contiguous_format)
            # Triton launches on the current device, wherever the tensors are.
            with torch.cuda.device_of(y_BHWC):  # type: ignore[no-untyped-call]
                for block in blocks:
                    block.run(y_BHWC)
            x_BHWC = x_BHWC + conv(y_BHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return F.pad(self.norm(x_BHWC[..., : self._dim]).to(dtype), (0, more)).permute(0, 3, 1, 2)


class FirstChannels(nn.Module):
    """(B, C, H, W) without the channels from ``num`` on."""

    def __init__(self, num: int) -> None:
        super().__init__()
        self.num = num

    def forward(self, x: Tensor) -> Tensor:
        return x[:, : self.num]


@torch.no_grad()
def widened(convs: nn.Module, dim: int, width: int) -> nn.Module:
    """A copy for ``width`` channels instead of ``dim``; what is more of them is not looked at and comes out as 0.

    On Hopper convolutions in bfloat16 want channels in whole 16 bytes.
    """
    wide = copy.deepcopy(convs)
    for conv in wide.modules():
        if isinstance(conv, nn.Conv2d) and conv.bias is not None:
            more_out, more_in = (width - dim if num == dim else 0 for num in (conv.out_channels, conv.in_channels))
            weight = F.pad(conv.weight, (0, 0, 0, 0, 0, more_in, 0, more_out))
            conv.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last), requires_grad=False)
            conv.bias = nn.Parameter(F.pad(conv.bias, (0, more_out)), requires_grad=False)
    return wide


class PackedBlock:
    """The parameters of a float32 block as the kernels read them: padded, weights in ``dtype``."""

    @torch.no_grad()
    def __init__(self, block: Block, shifted: bool, window_size: int, dtype: torch.dtype, launch: Launch) -> None:
        from swinir.triton_kernels import attention_kernel, mlp_kernel

        self._attention, self._mlp = attention_kernel, mlp_kernel
        dim, heads, hidden = block.attn.proj.in_features, block.attn.num_heads, block.mlp.fc1.out_features
        self._shape = dim, heads, window_size, block.norm1.eps
        self._shift = window_size // 2 if shifted else 0
        self._precision = "ieee" if dtype == torch.float32 else "tf32"  # which says nothing to bfloat16
        self._launch = {"num_warps": launch.num_warps, "num_stages": launch.num_stages}
        self._windows = launch.windows
        part = dim // heads
        c, more = parts(dim + ONES)
        d, h = sum(parts(part + 1)), -(-hidden // CHUNK) * CHUNK
        self._padded = c, more, d, h
        qkv, qkv_bias, bias, proj, proj_bias, fc1, fc1_bias, fc2, fc2_bias = packed(block, shifted, window_size)
        base = qkv.new_tensor([1 / math.log(2), 1, 1]).repeat_interleave(dim)
        by_head = with_bias(qkv.T * base, qkv_bias * base, c + more, dtype).view(-1, 3, heads, part)
        by_head = F.pad(by_head, (0, d - part))
        by_head[dim, 2, :, part] = 1
        weights = (
            by_head.permute(2, 1, 0, 3),  # K, 3, C, D
            F.pad(proj.view(dim, heads, part).permute(1, 2, 0), (0, c + more - dim, 0, d - part)),  # K, D, C
            F.pad(with_bias(fc1.T, fc1_bias, c + more, dtype), (0, h - hidden)),
            F.pad(fc2.T, (0, c + more - dim, 0, h - hidden)),
        )
        self._qkv, self._proj, self._fc1, self._fc2 = (weight.to(dtype).contiguous() for weight in weights)
        # Kinds, K, queries, keys. Read by every window: half the bytes where products are rounded anyway, in 11 bits.
        bias = (bias.transpose(-1, -2) / math.log(2)).contiguous()
        self._bias = bias if dtype == torch.float32 else bias.clamp(min=torch.finfo(torch.float16).min).half()
        self._proj_bias, self._fc2_bias = (F.pad(each, (0, c + more - dim)) for each in (proj_bias, fc2_bias))

    def run(self, x_BHWC: Tensor) -> None:
        """(B, H, W, C), contiguous, H and W whole windows; changed in place."""
        batch, height, width, _ = x_BHWC.shape
        dim, heads, window, eps = self._shape
        c, more, d, h = self._padded
        num_windows = batch * (height // window) * (width // window)
        self._attention[(-(-num_windows // self._windows),)](
            x_BHWC, self._qkv, self._bias, self._proj, self._proj_bias, height, width, self._shift, num_windows,
            DIM=dim, HEADS=heads, WINDOW=window, EPS=eps, C_PAD=c, C_MORE=more, D_PAD=d, L_PAD=TOKENS, WINDOWS=self._windows,
            PRECISION=self._precision, **self._launch,
        )  # fmt: skip
        num_tokens, block = batch * height * width, TOKENS * self._windows
        self._mlp[(-(-num_tokens // block),)](
            x_BHWC, self._fc1, self._fc2, self._fc2_bias, num_tokens,
            DIM=dim, EPS=eps, C_PAD=c, C_MORE=more, H_PAD=h, CHUNK=CHUNK, BLOCK=block, PRECISION=self._precision,
            **self._launch,
        )  # fmt: skip


def with_bias(weight: Tensor, bias: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """(in, out) with two rows that hold the bias, as what it is in ``dtype`` and the rest, and zeros up to ``size`` rows."""
    rounded = bias.to(dtype).to(bias.dtype)
    whole = torch.cat([weight, rounded[None], (bias - rounded)[None]])
    return F.pad(whole, (0, 0, 0, size - len(whole)))


def parts(size: int) -> tuple[int, int]:
    """Two powers of two, of 16 or more, the first the larger, that hold ``size`` together; the second is 0 where one does."""
    whole = max(16, 1 << (size - 1).bit_length())
    rest = max(16, 1 << (size - whole // 2 - 1).bit_length()) if size > whole // 2 else whole
    return (whole // 2, rest) if whole // 2 >= 16 and rest < whole // 2 else (whole, 0)
