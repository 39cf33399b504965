"""Where the patches of a training step come from: pictures in memory for a whole run, or a few of many at a time.

What a step sees follows from the pictures, the settings and the step's number, so a resumed run sees what an unbroken one
would have seen.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swinir.train.degrade import Coder
from swinir.train.pairs import Pair, Picture, degraded_pairs, reduced_pair
from swinir.train.recipe import TrainConfig
from swinir.train.synthetic import synthetic_picture

Made = TypeVar("Made")

AHEAD = 8  # steps whose batches are made while a GPU computes one
GRID = 16  # LR pixels between the places where patches may start, before jitter


class PatchError(ValueError):
    """Pictures of which no patch can be cut, in one line."""


class Batches(Protocol):
    """What a training loop draws from."""

    def pairs_at(self, step: int) -> Sequence[Pair]:
        """The (LR, HR) pictures that the patches of a step are cut from. Raises PatchError where none holds a patch."""
        ...

    def batch(self, step: int, config: TrainConfig, rank: int = 0, num_ranks: int = 1) -> tuple[Tensor, Tensor]:
        """The (B, 3, P, P) and (B, 3, P * scale, P * scale) uint8 patches of one step; of them a rank's share.

        May be asked by several threads, for steps that are near to each other.
        """
        ...

    def num_too_small(self, step: int) -> int:
        """How many of the photographs that a step could show hold no patch."""
        ...


class Patches:
    """LR/HR patch pairs, chosen in proportion to the gradient energy of what they show.

    The last ``num_synthetic`` pairs, which hold the edges that can be learned, give ``synthetic_share`` of the patches;
    ``num_small`` photographs were smaller than a patch.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        scale: int,
        patch: int,
        num_synthetic: int = 0,
        synthetic_share: float = 0.5,
        num_small: int = 0,
    ) -> None:
        self.scale, self.patch, self.pairs, self._num_small = scale, patch, pairs, num_small
        places = [gradient_places(lr, patch) for lr, _ in self.pairs] or [(np.zeros((0, 2), np.int64), np.zeros(0))]
        self.places = np.concatenate([np.insert(where, 0, i, axis=1) for i, (where, _) in enumerate(places)])
        energy = np.concatenate([energy for _, energy in places])
        if not len(energy):
            raise PatchError(f"no picture holds a patch of {patch} pixels once reduced x{scale}; add larger ones")
        synthetic = self.places[:, 0] >= len(pairs) - num_synthetic
        if 0 < synthetic.sum() < len(synthetic):
            energy[synthetic] *= synthetic_share / energy[synthetic].sum()
            energy[~synthetic] *= (1 - synthetic_share) / energy[~synthetic].sum()
        self.cumulative = np.cumsum(energy)
        self.cumulative /= self.cumulative[-1]

    def pairs_at(self, step: int) -> Sequence[Pair]:
        return self.pairs

    def batch(self, step: int, config: TrainConfig, rank: int = 0, num_ranks: int = 1) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((config.seed, step))
        pairs = [self._draw(rng) for _ in range(config.batch_size)][rank::num_ranks]  # to draw is cheap, and only views
        lr, hr = (torch.from_numpy(np.stack(side).transpose(0, 3, 1, 2)) for side in zip(*pairs, strict=True))
        return lr, hr

    def num_too_small(self, step: int) -> int:
        return self._num_small

    def _draw(self, rng: np.random.Generator) -> Pair:
        picture, y, x = self.places[np.searchsorted(self.cumulative, rng.random())]
        lr, hr = self.pairs[picture]
        y, x = (
            min(int(start + rng.integers(0, GRID)), size - self.patch) for start, size in zip((y, x), lr.shape[:2], strict=True)
        )
        s, p = self.scale, self.patch
        turn, flip = int(rng.integers(0, 4)), bool(rng.integers(0, 2))
        patches = (lr[y : y + p, x : x + p], hr[y * s : (y + p) * s, x * s : (x + p) * s])
        a, b = (np.rot90(patch[:, ::-1] if flip else patch, turn) for patch in patches)
        return a, b


def gradient_places(lr: Picture, patch: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Where patches may start, (num_places, 2) rows and columns, and how much gradient each shows."""
    if min(lr.shape[:2]) < patch:
        return np.zeros((0, 2), np.int64), np.zeros(0)
    grey = lr.mean(axis=2)
    energy = np.pad(np.abs(np.diff(grey, axis=0)), ((0, 1), (0, 0))) + np.pad(np.abs(np.diff(grey, axis=1)), ((0, 0), (0, 1)))
    total = np.pad(energy.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    rows, cols = (np.arange(0, size - patch + 1, GRID) for size in lr.shape[:2])
    y, x = (side.ravel() for side in np.meshgrid(rows, cols, indexing="ij"))
    inside = total[y + patch, x + patch] - total[y, x + patch] - total[y + patch, x] + total[y, x]
    # The floor keeps skies in the training, a little; the ceiling keeps foliage, which cannot be guessed, from taking it over.
    return np.stack([y, x], axis=1), np.clip(inside / patch**2, 1.0, 4.0)


class RenewedPatches:
    """Patches of ``pictures_at_once`` pictures, of others after every ``renew_steps`` steps: a turn.

    All pictures come round as often. The next turn's are read and degraded in a thread while this one's are trained on, so
    memory holds two turns, for AHEAD steps those before them too, however many pictures there are.
    """

    def __init__(self, pictures: Sequence[Picture], config: TrainConfig, coder: Coder | None = None) -> None:
        assert config.pictures_at_once is not None
        self._pictures, self._config, self._coder = pictures, config, coder
        self._at_once = min(config.pictures_at_once, len(pictures))
        self._ready: dict[int, Future[Patches]] = {}
        self._lock = threading.Lock()

    def pairs_at(self, step: int) -> Sequence[Pair]:
        return self._turn_of(step).pairs

    def batch(self, step: int, config: TrainConfig, rank: int = 0, num_ranks: int = 1) -> tuple[Tensor, Tensor]:
        return self._turn_of(step).batch(step, config, rank, num_ranks)

    def num_too_small(self, step: int) -> int:
        return self._turn_of(step).num_too_small(step)

    def _turn_of(self, step: int) -> Patches:
        last = (self._config.steps - 1) // self._config.renew_steps
        turn = min(step // self._config.renew_steps, last)  # after the last step there is only its sheet to show
        with self._lock:
            first = (step - AHEAD) // self._config.renew_steps  # that may still be asked for
            self._ready = {n: ready for n, ready in self._ready.items() if n >= first}
            if turn not in self._ready:
                self._ready[turn] = in_background(partial(self._make, turn))
            ready = self._ready[turn]
        patches = ready.result()
        with self._lock:
            if turn < last and turn + 1 not in self._ready:
                self._ready[turn + 1] = in_background(partial(self._make, turn + 1))
        return patches

    def _make(self, turn: int) -> Patches:
        """A turn without a patch shows the pictures of the next with one: it may come when a run has gone far."""
        num_turns = 2 * -(-len(self._pictures) // self._at_once)  # all pictures come in them, wherever a round begins
        for shown in range(turn, turn + num_turns):
            chosen = chosen_pictures(shown, self._at_once, len(self._pictures), self._config.seed)
            try:
                return patches_of((self._pictures[index] for index in chosen), self._config, self._coder, turn)
            except PatchError as error:
                without = error
        raise without


def in_background(make: Callable[[], Made]) -> Future[Made]:
    """What ``make`` gives, from a thread that no exit of the process waits for."""
    future: Future[Made] = Future()

    def run() -> None:
        try:
            future.set_result(make())
        except BaseException as error:  # noqa: BLE001 - raised where the patches are wanted
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def chosen_pictures(turn: int, at_once: int, num_pictures: int, seed: int) -> list[int]:
    """Which pictures a turn shows: all are gone through in random order, then in another, ``at_once`` of them a turn.

    In their own order, as archives are read best.
    """
    rounds, start = divmod(turn * at_once, num_pictures)
    num_rounds = -(-(start + at_once) // num_pictures)
    orders = [np.random.default_rng((seed, 5, rounds + n)).permutation(num_pictures) for n in range(num_rounds)]
    return sorted(int(index) for index in np.concatenate(orders)[start : start + at_once])


def training_patches(photographs: Sequence[Picture], config: TrainConfig, coder: Coder | None = None) -> Batches:
    """The patches of a run: photographs and drawn pictures, reduced or degraded; ``coder`` as ``degrade`` takes it.

    ``photographs`` are gone through once, or read one by one where ``config`` wants them so; one without pixels gives nothing,
    but keeps its place. Raises PatchError where no picture holds a patch.
    """
    if config.pictures_at_once is None:
        return patches_of(photographs, config, coder, 0)
    return RenewedPatches(photographs, config, coder)


def patches_of(photographs: Iterable[Picture], config: TrainConfig, coder: Coder | None, turn: int) -> Patches:
    """The patches of these photographs and of drawn pictures; every turn draws and degrades in its own way."""
    scale = config.model.upscale
    num_small = 0

    def counted() -> Iterator[Picture]:
        nonlocal num_small
        for photograph in photographs:
            num_small += 0 < min(photograph.shape[:2]) < config.patch * scale
            yield photograph

    pictures = itertools.chain(counted(), drawn_pictures(config, turn))
    if config.degradation is None:
        pairs = [reduced_pair(picture, scale) for picture in pictures if min(picture.shape[:2]) >= scale]
        num_synthetic = config.synthetic_pictures
    else:
        pairs = list(degraded_pairs(pictures, scale, config.degradation, config.crops, (config.seed, turn), coder))
        num_synthetic = config.synthetic_pictures * config.crops
    return Patches(pairs, scale, config.patch, num_synthetic, config.synthetic_share, num_small)


def drawn_pictures(config: TrainConfig, turn: int) -> Iterator[Picture]:
    """Pictures that make up for what photographs lack; they belong after these."""
    for kind in range(config.synthetic_pictures):
        yield synthetic_picture(kind, np.random.default_rng((config.seed, 7, turn, kind)))
