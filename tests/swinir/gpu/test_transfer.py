"""Tensors come back from where they were sent as they were."""

import pytest
import torch

from swinir.gpu.transfer import fetching, sent

CPU = torch.device("cpu")


def planes():
    return [torch.randint(0, 255, (48, 64), dtype=torch.uint8), torch.randint(0, 1023, (24, 32)).to(torch.uint16)]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_there_and_back(device):
    given = planes()
    there = sent(given, torch.device(device))
    assert {tensor.device.type for tensor in there} == {device}
    back = fetching(there)()
    assert {tensor.device for tensor in back} == {CPU}
    assert all(map(torch.equal, given, back))


@pytest.mark.gpu
def test_what_is_fetched_is_what_was_computed_before():
    x = torch.rand(4096, 4096, device="cuda")
    for _ in range(20):
        x = (x @ x).clamp(0, 1)
    truth, wait = x.cpu(), fetching([x])
    del x
    torch.rand(4096, 4096, device="cuda")  # which may take over its memory
    assert torch.equal(wait()[0], truth)
