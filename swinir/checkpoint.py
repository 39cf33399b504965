"""Checkpoint files: read without running code, recognised by their tensors, digested, packed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import pickle
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from swinir.model import SwinIR, SwinIRConfig, Upsampler

State = dict[str, Tensor]

DERIVED = ("attn_mask", "relative_position_index")  # buffers in published files that follow from the architecture
BLOCK = "layers.0.residual_group.blocks.0."
# What torch.load raises on a file that is no checkpoint, or one that wants to run code.
UNREADABLE = (
    pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError, AttributeError, TypeError, struct.error,
    safetensors.SafetensorError,
)  # fmt: skip


class WeightsError(ValueError):
    """Weights that cannot be found, fetched, read or used, in one line."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Float32 parameters under the published names, and the architecture they are of."""

    state: State
    config: SwinIRConfig


def read_checkpoint(path: Path, state_key: str | None = None) -> Checkpoint:
    """Read a .pth, .pt or .safetensors file; no code in it is run.

    The parameters are looked for under ``state_key``, then where SwinIR files are known to keep them. The architecture is
    recognised from the tensors; ``img_range``, which leaves no trace in them, from the window or our own metadata.
    Raises WeightsError.
    """
    state = _read_tensors(path, state_key)
    config = recognise(state, str(path))
    damaged = [name for name, value in state.items() if not bool(value.isfinite().all())]
    if damaged:
        raise WeightsError(f"{path}: {damaged[0]} holds values that are not finite; fetch the file again")
    if img_range := _written_range(path):
        config = dataclasses.replace(config, img_range=img_range)
    return Checkpoint(state, config)


def _written_range(path: Path) -> float | None:
    """What our own metadata says of it; other programs, too, call something "config"."""
    try:
        written = json.loads(_metadata(path).get("config", ""))
    except ValueError:
        return None
    value = written.get("img_range") if isinstance(written, dict) else None
    return float(value) if isinstance(value, int | float) and 0 < value < math.inf else None


def _read_tensors(path: Path, state_key: str | None) -> State:
    try:
        if is_safetensors(path):
            content: Any = safetensors.torch.load_file(path)
        else:
            with path.open("rb") as file:  # by a path torch.load would go by its ending
                content = torch.load(file, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise WeightsError(f"{path} cannot be read as weights: {_why_unreadable(error)}") from error
    for key in (state_key, "params_ema", "params", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"{path} holds no state dict, neither bare nor under 'params_ema', 'params' or 'state_dict'")
    named = {str(name).removeprefix("module."): value for name, value in content.items()}
    return {name: value.float().contiguous() for name, value in named.items() if not name.endswith(DERIVED)}


def _why_unreadable(error: Exception) -> str:
    """PyTorch's paragraphs, which advise to turn the safety off, in a clause of our own."""
    if refused := re.search(r"GLOBAL (\S+)", str(error)):
        return f"it holds {refused[1]}, and could run code; give a file of tensors alone (a state dict, or .safetensors)"
    if isinstance(error, safetensors.SafetensorError):
        return str(error).partition("\n")[0]
    return "it is no checkpoint, or cut short; fetch it again, or give a .pth or .safetensors state dict"


def is_safetensors(path: Path) -> bool:
    """By content, whatever the file is called: a length, then a JSON object."""
    with path.open("rb") as file:
        head = file.read(9)
    return head[8:] == b"{" and not head.startswith(b"PK")


def _metadata(path: Path) -> Mapping[str, str]:
    if not is_safetensors(path):
        return {}
    with safetensors.safe_open(path, "pt") as file:
        return file.metadata() or {}


def recognise(state: Mapping[str, Tensor], where: str) -> SwinIRConfig:
    """The architecture of a state dict, from names and shapes; window 7 means JPEG restoration, which works in [0, 255].

    Raises WeightsError, naming ``where``, if the tensors are not those of a SwinIR.
    """
    try:
        config = _recognise(state)
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise WeightsError(f"{where} does not hold a SwinIR network ({error}); name a file of that architecture") from error
    expected = parameter_shapes(config)
    if unknown := next((name for name in state if name not in expected), None):
        raise WeightsError(
            f"{where} looks like {describe(config)}, but {unknown} is no part of that; name a file of SwinIR itself, not "
            "of a relative such as HAT"
        )
    for name, wanted in expected.items():
        found = tuple(state[name].shape) if name in state else "nothing"
        if found != wanted:
            raise WeightsError(f"{where} looks like {describe(config)}, but {name} is {found} where {wanted} belongs")
    return config


def _recognise(state: Mapping[str, Tensor]) -> SwinIRConfig:
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    embed_dim, in_chans = shapes["conv_first.weight"][:2]
    bias_rows, _ = shapes[BLOCK + "attn.relative_position_bias_table"]
    window_size = (math.isqrt(bias_rows) + 1) // 2
    matches = (re.match(r"layers\.(\d+)\.residual_group\.blocks\.(\d+)\.", name) for name in shapes)
    blocks = {(int(match[1]), int(match[2])) for match in matches if match}
    groups = range(max(group for group, _ in blocks) + 1)
    table = "layers.{}.residual_group.blocks.0.attn.relative_position_bias_table"
    upsampler, upscale = _recognise_head(shapes, in_chans)
    return SwinIRConfig(
        upscale=upscale,
        in_chans=in_chans,
        depths=tuple(sum(group == g for g, _ in blocks) for group in groups),
        embed_dim=embed_dim,
        num_heads=tuple(shapes[table.format(group)][1] for group in groups),
        window_size=window_size,
        mlp_ratio=shapes[BLOCK + "mlp.fc1.weight"][0] / embed_dim,
        img_range=255.0 if window_size == 7 and upsampler == "" else 1.0,
        upsampler=upsampler,
        resi_connection="1conv" if "conv_after_body.weight" in shapes else "3conv",
    )


def _recognise_head(shapes: Mapping[str, tuple[int, ...]], in_chans: int) -> tuple[Upsampler, int]:
    if "conv_up1.weight" in shapes:
        return "nearest+conv", 4 if "conv_up2.weight" in shapes else 2
    steps = [shape for name, shape in shapes.items() if re.fullmatch(r"upsample\.\d+\.weight", name)]
    if "conv_before_upsample.0.weight" in shapes:
        factors = [math.isqrt(out // into) for out, into, *_ in steps]
        return "pixelshuffle", math.prod(factors)
    if steps:
        return "pixelshuffledirect", math.isqrt(steps[0][0] // in_chans)
    return "", 1


@lru_cache(maxsize=32)
def parameter_shapes(config: SwinIRConfig) -> dict[str, tuple[int, ...]]:
    """The published parameter names of an architecture and their shapes; kept between calls, so not to be changed."""
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in SwinIR(config).state_dict().items()}


def describe(config: SwinIRConfig) -> str:
    """An architecture in a few words, for messages."""
    head = config.upsampler or "restoration"
    colour = {1: "grey", 3: "RGB"}.get(config.in_chans, f"{config.in_chans} channels")
    body = f"blocks {'+'.join(map(str, config.depths))} of {config.embed_dim} channels, {config.num_heads[0]} heads"
    return f"a {head} x{config.upscale} network ({colour}, {body}, window {config.window_size}, {config.resi_connection})"


def build_network(config: SwinIRConfig, state: Mapping[str, Tensor]) -> SwinIR:
    """The network with these weights (copied), in float32 on the CPU, in evaluation mode, wanting no gradients.

    Names and shapes must all match.
    """
    with torch.device("cpu"):  # whatever the caller has set as defaults
        network = SwinIR(config).float()
    network.load_state_dict(state, strict=True)
    return network.eval().requires_grad_(False)


def random_state(config: SwinIRConfig, seed: int = 0) -> State:
    """PyTorch's initial weights for a seed; the global random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SwinIR(config).state_dict()


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) over names, dtypes, shapes and little-endian values, in the order of the names."""
    sha = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        sha.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        sha.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def to_bytes(state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """The state as a safetensors file."""
    contiguous = {name: value.contiguous() for name, value in state.items()}
    packed: bytes = safetensors.torch.save(contiguous, dict(metadata) if metadata else None)
    return packed


def from_bytes(packed: bytes) -> State:
    """The inverse of ``to_bytes``. Raises WeightsError where the bytes are no safetensors file."""
    try:
        state: State = safetensors.torch.load(packed)
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{len(packed)} bytes are not a safetensors file: {error}") from error
    return state
