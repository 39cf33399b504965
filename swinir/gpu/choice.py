"""Whether a GPU runs SwinIR by the Triton kernels, and how: tried on the GPU at hand, once for its type."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import torch
from filelock import FileLock
from torch import nn

from swinir.agreement import suits_triton
from swinir.gpu.blocks import TritonSwinIR
from swinir.gpu.graphs import Pass, Recorded, brief, recorded
from swinir.gpu.ordered import DIRECT_LAUNCHES, fits
from swinir.gpu.packing import LAUNCHES, Launch
from swinir.model import SwinIR
from swinir.weights import default_cache

MARGIN = 0.95  # of PyTorch's time: what wins by less may lose the next time
CHECKED_SIZE = (264, 296)  # holds windows of every kind, and as many as a GPU needs for each of its ways
TIMED_SIZE = 512  # 4096 windows: more than any GPU takes at once
PARTS = ("gelu", "kernels", "ends", "packing", "direct", "ordered", "persistent", "blocks", "choice")
SOURCES = tuple(f"{part}.py" for part in PARTS)  # what a choice holds for

log = logging.getLogger("swinir")


class Choice(NamedTuple):
    """How the two kernels are launched, or the one, whichever, and whether passes are recorded as CUDA graphs."""

    attention: Launch
    mlp: Launch | None
    graphs: bool = True


def by_triton(network: SwinIR, rounded: SwinIR, cache: Path | None = None) -> nn.Module:
    """``rounded`` by the kernels where Triton can be had, their result agrees and comes sooner; else ``rounded`` itself.

    ``network`` is in float32 on a CUDA device, in evaluation mode; ``rounded`` the same with its body in bfloat16. What was
    found once for a type of GPU and an architecture is kept in ``cache``, the user's by default.
    """
    device = network.mean.device
    if not suits_triton(network):
        return rounded
    try:
        import triton

        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        sources = [Path(__file__).with_name(file).read_text() for file in SOURCES]
        facts = json.dumps([name, torch.__version__, triton.__version__, repr(network.config), *sources])
        path = (cache or default_cache()) / "kernels" / f"triton-{hashlib.sha256(facts.encode()).hexdigest()[:16]}.json"
        with torch.cuda.device_of(network.mean):  # type: ignore[no-untyped-call]  # or Triton times another GPU
            choice = once(path, lambda: fastest(network, rounded))
            if choice is None:
                return rounded
            faster = checked(network, rounded, choice)
            return Recorded(faster) if choice.graphs else faster
    # A compiler that knows not this processor, a launch that wants more memory than it has: they fail in many ways.
    except Exception as error:  # noqa: BLE001
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # a device that is lost says so here, and not at some later place
        log.warning("SwinIR runs without its Triton kernels: %s", brief(error))
        return rounded
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()


@torch.inference_mode()
def fastest(network: SwinIR, rounded: SwinIR) -> Choice | None:
    """The launches that take the least time among those that work; None where PyTorch takes less or hardly more.

    Raises what the kernels fail with where none works, ArithmeticError where their result is another, and OutOfMemoryError
    where there was too little memory to find out.
    """
    log.warning("SwinIR tries its Triton kernels on this GPU, once; that takes a minute or two")
    device = network.mean.device
    faster = TritonSwinIR(network, torch.bfloat16)
    features = torch.rand((1, TIMED_SIZE, TIMED_SIZE, faster.width), dtype=torch.bfloat16, device=device)
    block = faster.groups[0][0][0]
    attention, attention_ms = quickest(lambda launch: block.attend(features, features, launch, whole=False))
    mlp, mlp_ms = quickest(lambda launch: block.mix(features, launch))
    both, both_ms = quickest(lambda launch: block.attend(features, features, launch, whole=True))
    if fits(network.config):
        direct_block = TritonSwinIR(network, torch.bfloat16, DIRECT_LAUNCHES[0]).groups[0][0][0]
        direct, direct_ms = quickest(
            lambda launch: direct_block.attend(features, features, launch, whole=True), DIRECT_LAUNCHES
        )  # fmt: skip
        both, both_ms = (direct, direct_ms) if direct_ms < both_ms else (both, both_ms)
    choice = Choice(both, None) if both_ms < attention_ms + mlp_ms else Choice(attention, mlp)
    faster = checked(network, rounded, choice)
    x = torch.rand((1, network.config.in_chans, TIMED_SIZE, TIMED_SIZE), device=device)
    run: Pass = faster
    try:
        run = recorded(faster, x)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        log.warning("SwinIR goes on without CUDA graphs: %s", brief(error))
    ratio = milliseconds(lambda: run(x)) / milliseconds(lambda: rounded(x))
    return choice._replace(graphs=run is not faster) if ratio < MARGIN else None


def quickest(run: Callable[[Launch], None], launches: Sequence[Launch] = LAUNCHES) -> tuple[Launch, float]:
    """The launch with which ``run`` takes the fewest milliseconds, and those; infinitely many where it fails with each."""
    times = dict.fromkeys(launches, math.inf)
    for launch in launches:
        try:
            times[launch] = milliseconds(lambda launch=launch: run(launch))  # type: ignore[misc]
        except torch.OutOfMemoryError:
            raise  # which says nothing about the launch
        except Exception as error:  # noqa: BLE001 - in many ways, as above
            log.info("a Triton kernel with %s: %s", launch, brief(error))
    best = min(times, key=times.__getitem__)
    return best, times[best]


def checked(network: SwinIR, rounded: SwinIR, choice: Choice) -> TritonSwinIR:
    """``rounded`` by the kernels. Raises ArithmeticError where the result is another."""
    faster = TritonSwinIR(network, torch.bfloat16, choice.attention, choice.mlp)
    if not agrees(network, rounded, faster):
        raise ArithmeticError("they differ from PyTorch on this machine")
    return faster


@torch.inference_mode()
def agrees(network: SwinIR, rounded: SwinIR, faster: SwinIR) -> bool:
    """Whether ``faster`` is about as far from float32 as ``rounded`` is; false where a value is not finite."""
    shape = (1, network.config.in_chans, *CHECKED_SIZE)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32, device="cpu").to(network.mean.device)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        truth = network(x)
    errors = [float((each(x) - truth).square().mean().sqrt()) for each in (faster, rounded)]
    # Without its position bias, its weakest part, a network is at three times the error of bfloat16.
    return errors[0] <= 1.5 * errors[1]


def milliseconds(run: Callable[[], object]) -> float:
    """The median of many times on the GPU."""
    from triton.testing import do_bench

    return float(do_bench(run, return_mode="median"))


def once(path: Path, find: Callable[[], Choice | None]) -> Choice | None:
    """What ``find`` said the first time that any process asked; what it says now where nothing can be kept."""
    with ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(f"{path}.lock"))  # which also keeps two processes from timing at once
        except OSError:
            return find()
        with suppress(OSError, ValueError, TypeError, LookupError):  # none, or none that can be read
            kept = json.loads(path.read_text())
            return kept and Choice(Launch(*kept[0]), Launch(*kept[1]) if kept[1] else None, bool(kept[2]))
        found = find()
        with suppress(OSError):
            part = path.with_suffix(".part")
            part.write_text(json.dumps(found))
            os.replace(part, path)
        return found
