"""Passes of a network recorded as CUDA graphs: the host has nothing to do for one but to say go."""

from __future__ import annotations

import logging
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn

Pass = Callable[[Tensor], Tensor]

SEEN = 4  # passes of a shape before it is recorded: pictures come in many sizes, the frames of a video in one
KEPT = 2  # shapes; the memory that each works in stays its own


class Recorded(nn.Module):
    """What ``network`` computes, recorded for the shapes that come often. For inference; from several threads.

    ``network`` must do nothing in a pass that its recording cannot hold: no question to the device, no tensors that something
    else may free. Where a recording fails, this one goes on without.
    """

    def __init__(self, network: nn.Module, record: Callable[[nn.Module, Tensor], Pass] | None = None) -> None:
        super().__init__()
        self.network = network
        self._record = record or recorded
        self._recording = True
        self._seen: Counter[torch.Size] = Counter()
        self._passes: OrderedDict[torch.Size, Pass] = OrderedDict()
        self._lock = threading.Lock()  # a recording has one place for its input

    def forward(self, x: Tensor) -> Tensor:
        with self._lock:
            run: Pass = self._pass_for(x) or self.network
            try:
                return run(x)
            except RuntimeError:
                self._passes.clear()  # memory ran out, say, and recordings hold much
                raise

    def _pass_for(self, x: Tensor) -> Pass | None:
        known = self._passes.get(x.shape)
        if known is not None:
            self._passes.move_to_end(x.shape)
            return known
        self._seen[x.shape] += 1
        if not self._recording or self._seen[x.shape] <= SEEN:
            return None
        if len(self._passes) == KEPT:
            self._passes.popitem(last=False)
        self._seen.clear()
        try:
            made = self._record(self.network, x)
        except RuntimeError as error:
            self._recording = False
            self._passes.clear()
            reason = " ".join(str(error).split())[:300]
            logging.getLogger("swinir").warning("SwinIR goes on without CUDA graphs: %s", reason)
            return None
        self._passes[x.shape] = made
        return made


def recorded(network: nn.Module, x: Tensor) -> Pass:
    """A pass of ``network`` for inputs like ``x``, which are on a CUDA device, as a graph.

    Raises RuntimeError where it cannot be recorded, memory runs out or the graph gives something else.
    """
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        given = x.clone()
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # PyTorch wants a pass beside the recording first
            truth = network(given)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            made: Tensor = network(given)

        def run(x: Tensor) -> Tensor:
            given.copy_(x)
            graph.replay()
            return made.clone()

        if not torch.allclose(run(x), truth, rtol=0, atol=1e-2, equal_nan=True):
            raise RuntimeError("a graph gives another result than what it recorded")
        return run
