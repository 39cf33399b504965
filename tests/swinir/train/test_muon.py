"""Matrices together take the steps that PyTorch's Muon takes one by one."""

import copy

import pytest
import torch

from swinir.train.muon import BatchedMuon


@pytest.mark.parametrize("shapes", [[(12, 4)], [(4, 12), (4, 4), (4, 12), (12, 4), (4, 4)]])
def test_the_steps_are_those_of_pytorch(shapes):
    theirs = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    ours = copy.deepcopy(theirs)
    before = [p.detach().clone() for p in theirs]
    optimizers = torch.optim.Muon(theirs, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"), BatchedMuon(ours)
    for _ in range(3):
        for a, b in zip(theirs, ours, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = 0.01
            optimizer.step()
    for a, b, start in zip(theirs, ours, before, strict=True):
        assert float((a - b).detach().norm()) <= 0.02 * float((a - start).detach().norm())
    assert optimizers[0].state_dict()["state"].keys() == optimizers[1].state_dict()["state"].keys()


def test_a_matrix_without_a_gradient_stays():
    still, moving = (torch.nn.Parameter(torch.ones(3, 3)) for _ in range(2))
    moving.grad = torch.randn(3, 3)
    BatchedMuon([still, moving]).step()
    assert torch.equal(still, torch.ones(3, 3))
    assert not torch.equal(moving, still)
