"""Processes that train together on this machine, as functions that spawned processes can import."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import torch
import torch.distributed as dist

from swinir.train.loop import Trainer, Way
from swinir.train.pairs import reduced_pair
from swinir.train.patches import Patches
from swinir.train.recipe import TrainConfig
from tests.swinir.tiny import picture


def train_together(config: TrainConfig, folder: Path, num_ranks: int, way: Way | None = None) -> list[dict[str, torch.Tensor]]:
    """Train to the last step; the weights that each rank ends with."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(num_ranks) as pool:
        meeting = f"file://{folder}.meeting"
        files = pool.starmap(
            _train, [(config, folder, meeting, rank, num_ranks, way) for rank in range(num_ranks)], chunksize=1
        )
    return [torch.load(file, weights_only=True) for file in files]


def _train(config: TrainConfig, folder: Path, meeting: str, rank: int, num_ranks: int, way: Way | None) -> Path:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=num_ranks)
    try:
        patches = Patches([reduced_pair(picture(96, 120, seed), 2) for seed in range(3)], 2, config.patch)
        trainer = Trainer(config, patches, folder, torch.device("cpu"), way=way)
        trainer.run([], lambda row: None, every=2)
        file = folder.with_name(f"{folder.name}-{rank}-of-{num_ranks}.pt")
        torch.save(trainer.model.state_dict() | {"step": torch.tensor(trainer.step)}, file)
        return file
    finally:
        dist.destroy_process_group()
