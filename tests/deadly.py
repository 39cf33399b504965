"""An image workload, for Ray workers to import, in which one picture kills the process that reads it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pipeline.dataset.index import Row
from pipeline.dataset.workload import ShardRunner, ShardWorkload, _Job
from swinir.upscaler import Upscaler


@dataclass(frozen=True)
class DeadlyShards(ShardWorkload):
    """``deadly`` is the key of the picture."""

    deadly: str = ""

    def open(self) -> ShardRunner:
        return DeadlyRunner(self, Upscaler.from_spec(self.model, self.config.device))


class DeadlyRunner(ShardRunner):
    def _read(self, row: Row, data: bytes) -> _Job:
        if row.key == self._job.deadly:  # type: ignore[attr-defined]
            os._exit(9)
        return super()._read(row, data)
