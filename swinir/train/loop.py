"""The training loop: photographs in, SwinIR weights out, resumable to the step.

L1 or L2 on reduced or degraded patches, Adam or Muon, cosine or multi-step decay, an exponential moving average of the
weights. The batch of a step is a function of the seed and the step's number, so a resumed run sees what an unbroken one would
have seen.

Where torch.distributed is initialised, each process computes its share of every batch, and the gradients of all are added: the
same steps as one process would do. The first process validates, logs and saves.
"""

from __future__ import annotations

import copy
import io
import json
import math
import os
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from swinir.codes import as_floats
from swinir.metrics import psnr_ssim_y
from swinir.model import SwinIR
from swinir.train.curves import Row, keep_log, plot_curves, read_log
from swinir.train.optimizers import as_run, lay_out, optimizers
from swinir.train.pairs import Pair, Picture, picture_of
from swinir.train.patches import AHEAD, Batches, in_background
from swinir.train.ranks import add_over_ranks, place_among_ranks
from swinir.train.recipe import TrainConfig, learning_rate, same_run
from swinir.train.start import start_as_pass_through, start_at
from swinir.train.steps import RecordedSteps, compile_blocks

Way = Callable[[SwinIR, torch.dtype], SwinIR]  # such as swinir.cpu.gradients.trainable

NUM_PLAIN = 8  # pictures of one colour, in a step that asks for them


class Trainer:
    """One run in one folder: ``state.pt`` to resume from, ``log.jsonl``, ``curve.png``."""

    def __init__(
        self,
        config: TrainConfig,
        patches: Batches,
        folder: Path,
        device: torch.device,
        weights: Mapping[str, Tensor] | None = None,
        way: Way | None = None,
        origin: str = "",
    ) -> None:
        """Begin at ``weights`` if given, else from scratch; where the folder holds a state, go on from that.

        ``way`` makes of the network one that computes the same by other means, with the factors of its products in the given
        type; it has the same parameters. ``origin`` tells photographs and weights to begin at from others.

        Raises ValueError where the weights or the state are not of this run.
        """
        self.rank, self.num_ranks = place_among_ranks()
        if self.num_ranks > config.batch_size:
            raise ValueError(f"{self.num_ranks} workers cannot share a batch of {config.batch_size}; use fewer workers")
        self.config, self.patches, self.folder, self.device = config, patches, folder, device
        self._origin = origin
        torch.manual_seed(config.seed)
        self.model = SwinIR(config.model)
        start_as_pass_through(self.model)
        if weights is not None:
            start_at(self.model, weights)
        self.model.to(device).train()
        dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
        self._network = way(self.model, dtype) if way else self.model
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.optimizers = optimizers(self.model, config)
        self.step = 0
        if self.rank == 0:
            folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        if self.rank == 0:
            keep_log(folder, self.step)
        if config.compile:
            example, _ = self.patches.batch(self.step, config, self.rank, self.num_ranks)
            compile_blocks(self._network, self._forward, as_floats(example.to(device)))
        self._ready: dict[int, Future[tuple[Tensor, Tensor]]] = {}
        self._compute, self._update = RecordedSteps(self._gradients, device), RecordedSteps(self._follow, device)

    @property
    def _state_path(self) -> Path:
        return self.folder / "state.pt"

    def _resume(self) -> None:
        """Go on from the state that the first process finds: another may look at older storage."""
        found = [self._read_state() if self.rank == 0 and self._state_path.exists() else None]
        if self.num_ranks > 1:
            dist.broadcast_object_list(found)
        if (state := found[0]) is not None:
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            states = state["optimizer"] if isinstance(state["optimizer"], list) else [state["optimizer"]]
            for optimizer, theirs in zip(self.optimizers, states, strict=True):
                optimizer.load_state_dict(theirs | {"param_groups": as_run(theirs["param_groups"], optimizer)})
                lay_out(optimizer)
            self.step = state["step"]

    def _read_state(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = torch.load(self._state_path, map_location="cpu", weights_only=True)
            complete = {"config", "model", "average", "optimizer", "step"} <= state.keys()
        except (RuntimeError, EOFError, KeyError, AttributeError, ValueError, pickle.UnpicklingError) as error:
            raise ValueError(f"{self._state_path} is damaged; remove it to begin anew") from error
        if not complete:
            raise ValueError(f"{self._state_path} is no state of a training run; choose another folder")
        if not same_run(state["config"], self.config):
            raise ValueError(f"{self._state_path} belongs to another training configuration; choose another folder")
        if state.get("origin", self._origin) != self._origin:
            raise ValueError(
                f"{self._state_path} was begun with other photographs or weights; give those, or choose another folder"
            )
        return state

    def save(self) -> None:
        """Write the state beside and rename it, so that a kill leaves the old one or the new one."""
        state = {
            "config": json.dumps(asdict(self.config)),
            "origin": self._origin,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
        }
        packed = io.BytesIO()
        torch.save(state, packed)  # into a file on a full disk, PyTorch fails with a riddle
        part = self._state_path.with_suffix(".part")
        part.write_bytes(packed.getbuffer())
        os.replace(part, self._state_path)

    def train_step(self) -> float:
        """One optimizer step; returns the mean absolute (L1) or root mean square (L2) error in 8-bit codes."""
        return self._errors([self._take_step()])[0]

    def _take_step(self) -> Tensor:
        """The loss, which a GPU may have yet to compute."""
        loss = self._compute(*self._batch(), self._plain_colours())
        assert loss is not None
        if self.num_ranks > 1:
            add_over_ranks([loss, *(p.grad for p in self.model.parameters() if p.grad is not None)])
        # A short memory at first, or the average would carry the starting point for long.
        decay = min(self.config.ema_decay, (self.step + 1) / (self.step + 11))
        self._update(torch.tensor(learning_rate(self.step, self.config)), torch.tensor(decay))
        self.step += 1
        return loss.clone()

    def _errors(self, losses: Sequence[Tensor]) -> list[float]:
        """Those of the last steps in 8-bit codes.

        Raises FloatingPointError where one is no number; the weights are spoilt then, but not the state that was saved.
        """
        known = torch.stack(list(losses)).tolist()
        for step, loss in enumerate(known, self.step - len(known)):
            if not math.isfinite(loss):
                raise FloatingPointError(f"the error is not finite at step {step}; train with a lower learning rate")
        return [255 * (math.sqrt(loss) if self.config.loss == "l2" else loss) for loss in known]

    def _batch(self) -> tuple[Tensor, Tensor]:
        """This rank's patches of the step; for a GPU those of the next steps are made ready meanwhile."""
        share = self.config, self.rank, self.num_ranks
        if self.device.type != "cuda":
            return self.patches.batch(self.step, *share)
        for step in range(self.step, max(self.step + 1, min(self.step + 1 + AHEAD, self.config.steps))):
            if step not in self._ready:
                self._ready[step] = in_background(partial(self._pinned, step, *share))
        return self._ready.pop(self.step).result()

    def _pinned(self, *which: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401 - as Batches.batch has them
        lr, hr = self.patches.batch(*which)
        return lr.pin_memory(), hr.pin_memory()

    def _gradients(self, lr: Tensor, hr: Tensor, colours: Tensor) -> Tensor:
        """The error; its gradients are left with the parameters."""
        self.model.zero_grad(set_to_none=True)
        distance = F.mse_loss if self.config.loss == "l2" else F.l1_loss
        loss = distance(self._forward(as_floats(lr)), as_floats(hr)) * (len(lr) / self.config.batch_size)
        total = loss
        if self.config.plain_weight:
            total = loss + self.config.plain_weight / self.num_ranks * self._plain_error(colours)
        total.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _follow(self, rate: Tensor, decay: Tensor) -> None:
        """Take the step that the gradients ask for, with the learning rate ``rate``; the average follows."""
        if self.config.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate if self.device.type == "cuda" else float(rate)
            optimizer.step()
        with torch.no_grad():
            slow, fast = ([p.data for p in model.parameters()] for model in (self.average, self.model))
            torch._foreach_mul_(slow, decay)
            torch._foreach_add_(slow, list(torch._foreach_mul(fast, 1 - decay)))

    def _plain_colours(self) -> Tensor:
        """(NUM_PLAIN, 3, 1, 1), drawn from all there are; a channel is black or full more often than chance has it, for there
        weights go wrong first. Empty where they are not weighed.
        """
        if not self.config.plain_weight:
            return torch.empty(0)
        drawn = np.random.default_rng((self.config.seed, self.step, 1)).random((NUM_PLAIN, 3, 1, 1), np.float32)
        return torch.from_numpy((1.4 * drawn - 0.2).clip(0, 1))

    def _plain_error(self, truth: Tensor) -> Tensor:
        """Mean absolute error on pictures of one colour each, away from their borders."""
        window = self.config.model.window_size
        output = self._forward(truth.expand(-1, -1, 2 * window, 2 * window).contiguous())
        border = window // 2 * self.config.model.upscale
        return (output[..., border:-border, border:-border] - truth).abs().mean()

    def _forward(self, lr: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            output: Tensor = self._network(lr)
        return output

    def run(
        self,
        validation: Sequence[Pair],
        report: Callable[[Row], None],
        every: int = 100,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Train to the last step; every ``every`` steps validate the average, log, plot and save.

        Where ``stop`` says so after a step, save and return; it is for a process that trains alone.
        """
        losses: list[float] = []
        late: list[Tensor] = []  # losses that are not asked for yet: at every question a GPU runs out of work
        started = time.monotonic()
        while self.step < self.config.steps:
            late.append(self._take_step())
            stopped = stop()
            noted = self.step % every == 0 or self.step == self.config.steps
            if stopped or noted or len(late) > (AHEAD if self.device.type == "cuda" else 0):
                losses += self._errors(late)
                late = []
            if stopped and self.step < self.config.steps:
                self.save()
                return
            if not noted:
                continue
            if self.rank == 0:
                self._note(float(np.mean(losses)), len(losses) / (time.monotonic() - started), validation, report)
            losses, started = [], time.monotonic()

    def _note(self, loss: float, steps_per_second: float, validation: Sequence[Pair], report: Callable[[Row], None]) -> None:
        row = {
            "step": self.step,
            "loss": round(loss, 4),
            "learning_rate": learning_rate(self.step - 1, self.config),
            "patches_per_second": round(self.config.batch_size * steps_per_second, 2),
        }
        if validation:
            row["psnr"] = round(self.validate(validation), 4)
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(row) + "\n")
        plot_curves(list(read_log(self.folder)), self.folder / "curve.png")
        self.save()
        report(row)

    def validate(self, pairs: Sequence[Pair]) -> float:
        """Mean PSNR on luma (dB) of the averaged weights, border of ``upscale`` pixels shaved."""
        border = self.config.model.upscale
        scores = [psnr_ssim_y(restore(self.average, lr), hr, border)[0] for lr, hr in pairs]
        return float(np.mean(scores))


def restore(model: SwinIR, lr: Picture) -> Picture:
    """(H, W, 3) uint8 through the network, rounded to uint8."""
    x = torch.from_numpy(lr).to(model.mean.device).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        return picture_of(model(x)[0])
