"""Between the host's memory and the device's, beside what the device computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def sent(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Tensors in the host's memory on ``device``, before the next that is computed there; the caller does not wait for them."""
    if device.type != "cuda":
        return [tensor.to(device) for tensor in tensors]
    return [tensor.pin_memory().to(device, non_blocking=True) for tensor in tensors]


def fetching(tensors: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
    """Begin to bring tensors of one device into the host's memory; what is returned waits for them and gives them.

    From a CUDA device on a stream of their own, so that the device goes on computing meanwhile.
    """
    device = tensors[0].device
    if device.type != "cuda":
        return lambda: [tensor.cpu() for tensor in tensors]
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # one of a few that PyTorch has
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        there = [torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for tensor in tensors]
        for tensor, copy in zip(tensors, there, strict=True):
            copy.copy_(tensor, non_blocking=True)
            tensor.record_stream(stream)  # or its memory would be given away before
        done = stream.record_event()

    def wait() -> list[Tensor]:
        done.synchronize()
        return there

    return wait
