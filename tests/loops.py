"""Training loops that Ray workers can import, and that die or fail."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch.distributed as dist

from jobs.train import Run
from swinir.model import SwinIRConfig
from swinir.presets import Preset
from tests.swinir.tiny import SMALL

TINY = Preset(name="tiny", task="test", scale=2, config=SwinIRConfig(**(SMALL | {"depths": (2,), "num_heads": (2,)})))


@dataclass(frozen=True)
class TinyRun(Run):
    """A run of a network that steps in milliseconds."""

    def __call__(self, device: str, tell: Callable[[str], None]) -> None:
        with mock.patch("swinir.presets.preset", return_value=TINY):
            super().__call__(device, tell)


@dataclass(frozen=True)
class DiesOnce:
    """A run whose second process is killed once, as soon as a state is there; ``mark`` remembers it."""

    run: Run
    mark: Path

    def __call__(self, device: str, tell: Callable[[str], None]) -> None:
        if dist.get_rank() == 1 and not self.mark.exists():
            threading.Thread(target=self._die, daemon=True).start()
        self.run(device, tell)

    def _die(self) -> None:
        while not (self.run.out / "state.pt").exists():
            time.sleep(0.01)
        self.mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Fails:
    """Never gets anywhere."""

    def __call__(self, device: str, tell: Callable[[str], None]) -> None:
        tell(f"on {device}")
        raise RuntimeError("no such luck")
