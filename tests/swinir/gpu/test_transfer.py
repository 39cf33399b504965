"""Tensors come back from where they were sent as they were."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from swinir.gpu.transfer import Beside, fetching, sent

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


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_threads_that_work_beside_a_model_get_what_one_alone_gets(device):
    """Large enough for a device to be behind its callers; memory is given away, and written over, as soon as it may be."""
    beside, lock, colours = Beside(torch.device(device)), threading.Lock(), threading.Lock()
    weight = torch.rand(2048, 2048, device=device) / 2048

    def made(number: int) -> Tensor:
        with colours, beside.current():
            x = sent([torch.full((2048, 2048), float(number))], torch.device(device))[0] + 1
        with lock:
            y = beside.given(x) @ weight @ weight
            beside.taken_back(y)
        del x
        with colours, beside.current():
            torch.full((2048, 2048), torch.nan, device=device)
            wait = fetching([y * 2])
        del y
        with lock:
            torch.full((2048, 2048), torch.nan, device=device)
        return wait()[0]

    alone = [made(number) for number in range(12)]
    with ThreadPoolExecutor(4) as pool:
        assert all(map(torch.equal, alone, pool.map(made, range(12))))
