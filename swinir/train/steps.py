"""Steps of training in fewer launches, at which a host is slower than a GPU: blocks compiled, and all as one CUDA graph."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from swinir.gpu.graphs import brief
from swinir.gpu.training import RasterSwinIR
from swinir.model import Block, SwinIR

WARM = 3  # steps before the recording, in which libraries choose what they use


class RecordedSteps:
    """``compute``, for tensors in the host's memory; where ``device`` is a GPU they are brought there, and it is recorded.

    The tensors have the same shapes every time; what is returned is overwritten in the next step. ``compute`` asks the device
    nothing, and what it reads and writes beside stays where it is: gradients, if the first thing that it does is to drop those
    that there are.
    """

    def __init__(self, compute: Callable[..., Tensor | None], device: torch.device) -> None:
        self._compute, self._device = compute, device
        self._left: int | None = WARM if device.type == "cuda" else None  # steps before the recording, if it is to be
        self._graph: torch.cuda.CUDAGraph | None = None
        self._given: list[Tensor] = []
        self._made: Tensor | None = None

    def __call__(self, *given: Tensor) -> Tensor | None:
        if self._left == 0:
            self._record(given)
        if self._graph is None:
            if self._left:
                self._left -= 1
            return self._beside(given) if self._device.type == "cuda" else self._compute(*given)
        for held, new in zip(self._given, given, strict=True):
            held.copy_(new, non_blocking=True)  # PyTorch keeps what is pinned until it is there
        self._graph.replay()
        return self._made

    def _beside(self, given: tuple[Tensor, ...]) -> Tensor | None:
        """On a stream of its own, as PyTorch wants it before a recording."""
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            made = self._compute(*(tensor.to(self._device) for tensor in given))
        torch.cuda.current_stream(self._device).wait_stream(stream)
        return made

    def _record(self, given: tuple[Tensor, ...]) -> None:
        self._left = None
        self._given = [tensor.to(self._device) for tensor in given]
        graph = torch.cuda.CUDAGraph()
        try:
            # The current stream again on the way out: where a recording fails, PyTorch would leave its own.
            with (
                torch.cuda.device(self._device),
                torch.cuda.stream(torch.cuda.current_stream(self._device)),
                torch.cuda.graph(graph, capture_error_mode="thread_local"),
            ):
                self._made = self._compute(*self._given)
        except RuntimeError as error:
            torch.cuda.synchronize(self._device)
            logging.getLogger("swinir").warning("training goes without CUDA graphs: %s", brief(error))
            return
        self._graph = graph


def compile_blocks(model: SwinIR, forward: Callable[[Tensor], Tensor], example: Tensor) -> None:
    """Have PyTorch compile the blocks for inputs of the shape of ``example``, both ways; all blocks share the code.

    Raises ValueError where it cannot.
    """
    from torch._dynamo.exc import TorchDynamoException  # loads the compiler

    if isinstance(model, RasterSwinIR):
        model.run_block = torch.compile(model.run_block, dynamic=False)
    else:
        for block in model.modules():
            if isinstance(block, Block):
                block.compile(dynamic=False)
    try:
        forward(example).sum().backward()  # type: ignore[no-untyped-call]
    except TorchDynamoException as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"the blocks cannot be compiled here: {reason}; train without compile") from error
    model.zero_grad(set_to_none=True)
