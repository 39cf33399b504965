"""An image workload, for Ray workers to import, in which some pictures kill the process that reads them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pipeline.dataset.index import Row
from pipeline.dataset.pending import Job
from pipeline.dataset.workload import ShardRunner, ShardWorkload
from swinir.upscaler import Upscaler


@dataclass(frozen=True)
class DeadlyShards(ShardWorkload):
    """``deadly`` are the keys of the pictures."""

    deadly: tuple[str, ...] = ()

    def open(self) -> ShardRunner:
        return DeadlyRunner(self, Upscaler.from_spec(self.model, self.config.device))


class DeadlyRunner(ShardRunner):
    def _read(self, row: Row, data: bytes | None, scratch: Path) -> Job:
        if row.key in self._job.deadly and row.status != "crashed":  # type: ignore[attr-defined]
            os._exit(9)
        return super()._read(row, data, scratch)
