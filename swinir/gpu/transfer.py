"""Between the host's memory and the device's, beside what the device computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress

import torch
from torch import Tensor

from swinir.codes import as_floats
from swinir.device import place_for


def placed(x: Tensor, num_pixels: int, device: torch.device) -> Tensor:
    """Codes on ``device``, those of 16 bits as floats, where that has room for them and for results of that many pixels.

    Else as they are, in the host's memory, from where tiles go to the device one by one.
    """
    if place_for(num_pixels, device).type == "cuda":
        with suppress(torch.OutOfMemoryError):
            there = x.to(device)
            return there if x.dtype == torch.uint8 else as_floats(there)
    return x


def sent(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Tensors in the host's memory on ``device``, before the next that is computed there; the caller does not wait for them."""
    if device.type != "cuda":
        return [tensor.to(device) for tensor in tensors]
    return [tensor.pin_memory().to(device, non_blocking=True) for tensor in tensors]


class Beside:
    """A stream of a CUDA device for what is done to pictures before and after a model, which computes others meanwhile.

    On another device all is done at once. For several threads, of which one at a time uses the model, on the current stream.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = stream_beside(device) if device.type == "cuda" else None

    def current(self) -> AbstractContextManager[object]:
        """Within it all is computed on the stream beside; by one thread at a time, too."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def given(self, x: Tensor) -> Tensor:
        """``x`` of the stream beside for the current one, which waits for it."""
        if self._stream is not None and x.is_cuda:
            _handed(x, self._stream, torch.cuda.current_stream(self._device))
        return x

    def taken_back(self, x: Tensor) -> Tensor:
        """``x`` of the current stream for the one beside, which waits for it."""
        if self._stream is not None and x.is_cuda:
            _handed(x, torch.cuda.current_stream(self._device), self._stream)
        return x


def stream_beside(device: torch.device) -> torch.cuda.Stream:
    """One of a few that PyTorch has. Of high priority, for those are never the one that ``graphs.recorded`` records on: what
    another thread computes meanwhile would become a part of the recording.
    """
    return torch.cuda.Stream(device, priority=-1)  # type: ignore[no-untyped-call]


def _handed(x: Tensor, giver: torch.cuda.Stream, taker: torch.cuda.Stream) -> None:
    taker.wait_stream(giver)
    x.record_stream(taker)  # or its memory would be given away before


def fetching(tensors: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
    """Begin to bring tensors of one device into the host's memory; what is returned waits for them and gives them.

    From a CUDA device on a stream of their own, so that the device goes on computing meanwhile.
    """
    device = tensors[0].device
    if device.type != "cuda":
        return lambda: [tensor.cpu() for tensor in tensors]
    stream = stream_beside(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        there = [torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True) for tensor in tensors]
        for tensor, copy in zip(tensors, there, strict=True):
            copy.copy_(tensor, non_blocking=True)
            tensor.record_stream(stream)  # or its memory would be given away before
        done = stream.record_event()

    def wait() -> list[Tensor]:
        done.synchronize()
        return there

    return wait
