"""What a model is measured by: the paper's tasks, how each degrades a picture, and the scores of what comes back.

Liang et al., "SwinIR: Image Restoration Using Swin Transformer", 2021, section 4, and the test script released with it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from swinir.codes import as_floats, to_codes
from swinir.metrics import channels, luma, psnr, psnr_b, psnr_ssim_y, ssim
from swinir.perceptual import Lpips, lpips_of
from swinir.presets import PRESETS
from swinir.resize import resize_uint8

PUBLISHED = Path(__file__).with_name("published_scores.json")
MIDDLE = {"denoise": 25, "jpeg": 20}  # of the paper's levels, for models of any

Picture = NDArray[np.uint8]  # (H, W, 3) RGB or (H, W) grey
Restore = Callable[[Tensor], Tensor]  # (1, C, H, W) float32 in [0, 1], not clamped, to the same of the result's size


class Scores(NamedTuple):
    """PSNR in dB, SSIM, PSNR-B in dB for JPEG artifacts (None elsewhere), and LPIPS where that is asked for."""

    psnr: float
    ssim: float
    psnr_b: float | None = None
    lpips: float | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """``level`` is the scale of "sr", the standard deviation of "noise" in codes, the quality of "jpeg".

    A ``grey`` task sees the picture in grey.
    """

    kind: Literal["sr", "noise", "jpeg"]
    level: int
    grey: bool = False

    @property
    def baseline(self) -> str:
        """What the model is compared with: bicubic enlargement, or the input as it is."""
        return "bicubic" if self.kind == "sr" else "input"

    def __str__(self) -> str:
        if self.kind == "sr":
            return f"x{self.level}, luma, border {self.level}"
        return f"{'grey' if self.grey else 'colour'} {self.kind} {self.level}"


@dataclass(frozen=True, slots=True)
class Measured:
    """One picture: the scores of the model and of its baseline, and the uint8 pictures they belong to."""

    ours: Scores
    baseline: Scores
    pictures: tuple[Picture, Picture, Picture]  # baseline, ours, truth


def task_of(model: str, scale: int, in_chans: int, noise: int | None, jpeg: int | None) -> Task:
    """What ``model`` is for, by its preset, or what ``noise`` or ``jpeg`` says. Raises ValueError where nothing says it."""
    if noise is not None and jpeg is not None:
        raise ValueError("--noise and --jpeg are two tasks; give one")
    if scale > 1:
        if noise is not None or jpeg is not None:
            raise ValueError(f"{model} enlarges x{scale}: it is measured on reduced pictures, without --noise and --jpeg")
        return Task("sr", scale)
    task = PRESETS[model].task if model in PRESETS else ""
    if noise is None and jpeg is None:
        level = int(model.rpartition("-")[2]) if task.endswith(("_dn", "_jpeg")) else MIDDLE.get(task)
        noise, jpeg = (level, None) if task.endswith(("_dn", "denoise")) else (None, level)
    if noise is not None:
        return Task("noise", noise, in_chans == 1)
    if jpeg is not None:
        return Task("jpeg", jpeg, in_chans == 1)
    raise ValueError(f"{model} keeps the size: say what it restores, --noise 25 or --jpeg 10, or give pairs by --lr and --hr")


def truth_for(task: Task, picture: Picture) -> Picture:
    """The picture that a result is compared with, from the RGB or grey original.

    In the size that the scale divides. In grey: JPEG's pictures are the BT.601 luma in [16, 235], rounded, and the others what
    image readers make of colour (Pillow's "L"), both as in the reference; a grey original stays as it is.
    """
    if task.kind == "sr":
        height, width = (size // task.level * task.level for size in picture.shape[:2])
        return picture[:height, :width]
    if not task.grey or picture.ndim == 2:
        return picture
    if task.kind == "jpeg":
        return luma(picture).round().astype(np.uint8)
    return np.array(Image.fromarray(picture).convert("L"))


def degraded(task: Task, truth: Picture) -> Tensor:
    """What the model is given: (1, C, H, W) float32 in [0, 1], but that noise may leave it, as in the reference.

    sr: MATLAB's bicubic reduction. noise: of numpy's first generator, seeded with 0 for every picture, its channels in the
    order B, G, R. jpeg: Pillow's encoder (libjpeg-turbo, 4:2:0) and decoder; the reference has OpenCV's, which are the same.
    """
    if task.kind == "sr":
        return as_tensor(resize_uint8(truth, Fraction(1, task.level)))
    if task.kind == "jpeg":
        file = io.BytesIO()
        Image.fromarray(truth).save(file, "JPEG", quality=task.level)
        return as_tensor(np.array(Image.open(file)))
    noise = np.random.RandomState(0).normal(0, task.level / 255, truth.shape)
    noisy = truth.astype(np.float32) / 255 + (noise if truth.ndim == 2 else noise[..., ::-1])
    return torch.from_numpy(np.moveaxis(np.atleast_3d(noisy), 2, 0)[None].astype(np.float32))


def measure(task: Task, restore: Restore, x: Tensor, truth: Picture, perceptual: Lpips | None = None) -> Measured:
    """The scores of ``restore(x)``, rounded to uint8, and of the baseline, with LPIPS by ``perceptual`` if given.

    Raises ValueError where shapes do not fit.
    """
    before = as_picture(x)
    baseline = resize_uint8(before, task.level) if task.kind == "sr" and task.level > 1 else before
    ours = as_picture(restore(x))
    scores = [
        score(task, picture, truth)._replace(lpips=lpips_of(perceptual, picture, truth) if perceptual else None)
        for picture in (ours, baseline)
    ]
    return Measured(scores[0], scores[1], (baseline, ours, truth))


def score(task: Task, output: Picture, truth: Picture) -> Scores:
    """sr: on luma without a border of ``level`` pixels. The others: on all channels and pixels; SSIM and PSNR-B are means of
    the channels'. Raises ValueError where shapes differ.
    """
    if task.kind == "sr":
        return Scores(*psnr_ssim_y(output, truth, task.level))
    if output.shape != truth.shape:
        raise ValueError(f"images differ in shape: {output.shape} and {truth.shape}")
    pairs = list(zip(channels(output), channels(truth), strict=True))
    similarity = float(np.mean([ssim(a, b) for a, b in pairs]))
    blocks = float(np.mean([psnr_b(a, b) for a, b in pairs])) if task.kind == "jpeg" else None
    return Scores(psnr(output.astype(np.float64), truth.astype(np.float64)), similarity, blocks)


def colour_shifts(restore: Restore, scale: int) -> list[float]:
    """By how many codes the mean of the channel that moves most differs, for each of 125 plain RGB colours; without borders."""
    levels = torch.linspace(0, 1, 5)
    shifts = []
    for colour in torch.cartesian_prod(levels, levels, levels).view(-1, 1, 3, 1, 1):
        output = restore(colour.expand(-1, -1, 32, 32).contiguous()).cpu().clamp(0, 1)
        inner = output[..., 8 * scale : -8 * scale, 8 * scale : -8 * scale]
        shifts.append(255 * float((inner - colour).mean(dim=(0, 2, 3)).abs().max()))
    return shifts


def mean_of(rows: Sequence[Scores]) -> Scores:
    """The mean of each column. Raises ValueError where there are no rows."""
    if not rows:
        raise ValueError("no images, no mean")
    columns = zip(*rows, strict=True)
    return Scores(*(None if None in column else float(np.mean(column)) for column in columns))  # type: ignore[arg-type]


@lru_cache(maxsize=1)
def published_scores() -> dict[str, dict[str, list[float]]]:
    """[PSNR, SSIM] or [PSNR] that others published, by model ("+": self-ensemble) and dataset; the file says where."""
    scores: dict[str, dict[str, list[float]]] = json.loads(PUBLISHED.read_text())["scores"]
    return scores


def as_tensor(picture: Picture) -> Tensor:
    """(H, W, 3) or (H, W) uint8 -> (1, C, H, W) float32 in [0, 1]."""
    return as_floats(torch.from_numpy(np.moveaxis(np.atleast_3d(picture), 2, 0)[None].copy()))


def as_picture(x: Tensor) -> Picture:
    """The way back, clamped and rounded half to even; one channel is grey."""
    codes: Picture = to_codes(x, np.dtype(np.uint8))[0].astype(np.uint8, copy=False)
    return np.ascontiguousarray(codes[..., 0]) if codes.shape[2] == 1 else codes
