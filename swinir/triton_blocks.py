"""SwinIR on a GPU with each block as two Triton kernels, where those are at hand, agree and win."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor
from torch.nn import functional as F

from swinir.blocks import TOKENS, packed
from swinir.model import Block, SwinIR
from swinir.weights import default_cache

BLOCK = 64  # tokens that one program of the MLP takes
CHUNK = 64  # hidden channels it holds at once
# For 180 channels a program has 180 KiB of shared memory on Hopper, of 227, and no register spilled; 3 stages do not fit.
LAUNCH = {"num_warps": 8, "num_stages": 2}
MARGIN = 0.95  # of PyTorch's time: what wins by less may lose the next time
CHECKED_SIZE = (72, 104)  # holds windows of every kind
MAX_PLACES = 2**31  # of one picture: the kernels count in 32 bits


def by_triton(network: SwinIR, rounded: SwinIR, tile: int, batch: int, cache: Path | None = None) -> SwinIR:
    """``rounded`` by the kernels where Triton can be had, their result agrees and comes sooner; else ``rounded`` itself.

    ``network`` is in float32 on a CUDA device, in evaluation mode; ``rounded`` the same with its body in bfloat16. What was
    found once for a type of GPU, an architecture and batches of ``tile`` is kept in ``cache``, the user's by default.
    """
    device = network.mean.device
    log = logging.getLogger("swinir")
    if network.config.window_size**2 > TOKENS:
        return rounded
    try:
        faster = TritonSwinIR(network, torch.bfloat16)
        if not agrees(network, rounded, faster):
            log.warning("the Triton kernels differ from PyTorch's on this machine; going on without them")
            return rounded
        x = torch.rand((batch, network.config.in_chans, tile, tile), device=device)
        facts = [name_of(device), torch.__version__, repr(network.config), tile, batch, LAUNCH]
        key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
        wins = once(
            (cache or default_cache()) / "kernels" / f"triton-{key}.json", lambda: seconds_ratio(faster, rounded, x) < MARGIN
        )
        return faster if wins else rounded
    # A compiler that knows not this processor, a launch that wants more memory than it has: they fail in many ways.
    except Exception as error:  # noqa: BLE001
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # a device that is lost says so here, and not at some later place
        log.warning("SwinIR runs without its Triton kernels: %s", " ".join(str(error).split())[:300])
        return rounded
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()


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


def once(path: Path, find: Callable[[], bool]) -> bool:
    """What ``find`` said the first time that any process asked; what it says now where nothing can be kept."""
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.lock"):  # which also keeps two processes from timing at once
                if not path.exists():
                    path.write_text(json.dumps(find()))
        return bool(json.loads(path.read_text()))
    except (OSError, ValueError):
        return find()


def name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


class TritonSwinIR(SwinIR):
    """What ``network``, which is in float32, computes with its body in ``dtype``, by the kernels. For inference.

    Raises ImportError without Triton.
    """

    def __init__(self, network: SwinIR, dtype: torch.dtype) -> None:
        torch.nn.Module.__init__(self)
        rounded = copy.deepcopy(network).set_body_dtype(dtype)
        self.__dict__.update(rounded.to(memory_format=torch.channels_last).__dict__)  # type: ignore[call-overload]
        groups: list[Any] = list(network.layers)
        blocks = [list(group.residual_group.blocks) for group in groups]
        window = self.config.window_size
        self._blocks = [[PackedBlock(one, i % 2 == 1, window, dtype) for i, one in enumerate(many)] for many in blocks]

    def _body(self, shallow: Tensor) -> Tensor:
        dtype = self.norm.weight.dtype
        if shallow[0].numel() >= MAX_PLACES:
            return super()._body(shallow)
        # Channels last all the way, so that nothing is copied to change the layout.
        x_BHWC = self.patch_embed.norm(shallow.to(dtype).permute(0, 2, 3, 1).contiguous()).to(dtype)
        groups: list[Any] = list(self.layers)
        for group, blocks in zip(groups, self._blocks, strict=True):
            y_BHWC = x_BHWC.clone(memory_format=torch.contiguous_format)
            # Triton launches on the current device, wherever the tensors are.
            with torch.cuda.device_of(y_BHWC):  # type: ignore[no-untyped-call]
                for block in blocks:
                    block.run(y_BHWC)
            x_BHWC = x_BHWC + group.conv(y_BHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x_BCHW: Tensor = self.norm(x_BHWC).to(dtype).permute(0, 3, 1, 2)
        return x_BCHW


class PackedBlock:
    """The parameters of a float32 block as the kernels read them: padded, weights in ``dtype``."""

    @torch.no_grad()
    def __init__(self, block: Block, shifted: bool, window_size: int, dtype: torch.dtype) -> None:
        from swinir.triton_kernels import attention_kernel, mlp_kernel

        self._attention, self._mlp = attention_kernel, mlp_kernel
        dim, heads, hidden = block.attn.proj.in_features, block.attn.num_heads, block.mlp.fc1.out_features
        self._shape = dim, heads, window_size, block.norm1.eps
        self._shift = window_size // 2 if shifted else 0
        self._precision = "ieee" if dtype == torch.float32 else "tf32"  # which says nothing to bfloat16
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
        self._qkv, self._proj, self._fc1, self._fc2 = (weight.to(dtype).contiguous() for weight in weights)
        biases = (
            F.pad(qkv_bias.view(3, heads, part).transpose(0, 1), (0, d - part)),  # K, 3, D
            bias.transpose(-1, -2),  # kinds, K, queries, keys
            F.pad(proj_bias, (0, c - dim)),
            F.pad(fc1_bias, (0, h - hidden)),
            F.pad(fc2_bias, (0, c - dim)),
        )
        self._qkv_bias, self._bias, self._proj_bias, self._fc1_bias, self._fc2_bias = (each.contiguous() for each in biases)

    def run(self, x_BHWC: Tensor) -> None:
        """(B, H, W, C), contiguous, H and W whole windows; changed in place."""
        batch, height, width, _ = x_BHWC.shape
        dim, heads, window, eps = self._shape
        c, d, h = self._padded
        self._attention[(batch * (height // window) * (width // window),)](
            x_BHWC, self._qkv, self._qkv_bias, self._bias, self._proj, self._proj_bias, height, width, self._shift,
            DIM=dim, HEADS=heads, WINDOW=window, EPS=eps, C_PAD=c, D_PAD=d, L_PAD=TOKENS, PRECISION=self._precision,
            **LAUNCH,
        )  # fmt: skip
        num_tokens = batch * height * width
        self._mlp[(-(-num_tokens // BLOCK),)](
            x_BHWC, self._fc1, self._fc1_bias, self._fc2, self._fc2_bias, num_tokens,
            DIM=dim, EPS=eps, C_PAD=c, H_PAD=h, CHUNK=CHUNK, BLOCK=BLOCK, PRECISION=self._precision,
            **LAUNCH,
        )  # fmt: skip


def padded(size: int) -> int:
    """The least power of two that holds ``size``, at least the 16 of a matrix unit."""
    return max(16, 1 << (size - 1).bit_length())
