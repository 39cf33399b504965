"""Passes of a network recorded as CUDA graphs: the host has nothing to do for one but to say go."""

from __future__ import annotations

import logging
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor, nn

Pass = Callable[[Tensor], Tensor]

SEEN = 4  # passes of a shape before it is recorded: pictures come in many sizes, the frames of a video in one
KEPT = 2  # shapes; the memory that each works in stays its own
MOST_SAMPLES = 8 << 20  # of an input: what takes longer hides what the host does


@torch.inference_mode(False)  # or what is recorded within that mode could not be replayed outside of it
@torch.no_grad()
def recorded(network: nn.Module, x: Tensor) -> Pass:
    """A pass of ``network`` for inputs like ``x``, which are on a CUDA device, as a graph.

    Raises RuntimeError where it cannot be recorded, memory runs out or the graph gives something else.
    """
    # The current stream again on the way out: where a recording fails, PyTorch would leave its own.
    with torch.cuda.device_of(x), torch.cuda.stream(torch.cuda.current_stream()):  # type: ignore[no-untyped-call]
        given = x.clone(memory_format=torch.contiguous_format)
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # PyTorch wants a pass beside the recording first
            truth = network(given)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=aside, capture_error_mode="thread_local"):
                made: Tensor = network(given)
        except RuntimeError:
            torch.cuda.synchronize()
            raise

        def run(x: Tensor) -> Tensor:
            given.copy_(x)
            graph.replay()
            return made.clone()

        made.zero_()  # a graph that holds nothing would pass
        if not torch.allclose(run(x), truth, rtol=0, atol=1e-2, equal_nan=True):
            raise RuntimeError("a graph gives another result than what it recorded")
        return run


class Recorded(nn.Module):
    """What ``network`` computes, recorded for the shapes that come often. For inference; from several threads, on one stream.

    ``network`` must do nothing in a pass that its recording cannot hold: no question to the device, no tensors that something
    else may free. Where a recording fails, this one goes on without.
    """

    def __init__(self, network: nn.Module, record: Callable[[nn.Module, Tensor], Pass] = recorded) -> None:
        super().__init__()
        self.network = network
        self._record: Callable[[nn.Module, Tensor], Pass] | None = record
        self._needed = SEEN
        self._seen: Counter[torch.Size] = Counter()
        self._passes: OrderedDict[torch.Size, Pass] = OrderedDict()
        self._lock = threading.Lock()  # a recording has one place for its input

    def forward(self, x: Tensor) -> Tensor:
        with self._lock:
            run = self._pass_for(x)
            if run:
                with suppress(torch.OutOfMemoryError):
                    return run(x)
                run = None  # or its memory would stay
                self._give_up()
            result: Tensor = self.network(x)
            return result

    def forget(self) -> None:
        """Give the memory of recordings back."""
        with self._lock:
            if self._passes:
                self._give_up()

    def _give_up(self) -> None:
        self._passes.clear()
        self._seen.clear()
        self._needed *= 4  # or it would go on like this
        torch.cuda.empty_cache()

    def _pass_for(self, x: Tensor) -> Pass | None:
        known = self._passes.get(x.shape)
        if known is not None:
            self._passes.move_to_end(x.shape)
            return known
        if x.numel() > MOST_SAMPLES:
            return None
        self._seen[x.shape] += 1
        if not self._record or self._seen[x.shape] <= self._needed:
            return None
        self._seen.clear()
        if len(self._passes) == KEPT:
            self._passes.popitem(last=False)
            self._needed *= 2  # more shapes come often than can be kept
        try:
            made = self._record(self.network, x)
        except torch.OutOfMemoryError:
            self._give_up()
            return None
        except RuntimeError as error:
            self._record = None
            logging.getLogger("swinir").warning("SwinIR goes on without CUDA graphs: %s", brief(error))
            return None
        self._passes[x.shape] = made
        return made


def brief(error: Exception) -> str:
    """In one line."""
    return " ".join(str(error).split())[:300]
