"""LPIPS: how different two pictures look, by what a network trained to name photographs makes of them.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", 2018, arXiv 1801.03924: AlexNet's
features, weighed by the authors' weights of version 0.1. Both files are fetched once, into the user's cache folder.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from swinir.checkpoint import UNREADABLE, WeightsError
from swinir.codes import as_floats
from swinir.download import Remote, fetch, mirrored
from swinir.weights import default_cache

ALEXNET = Remote("https://download.pytorch.org/models/alexnet-owt-7be5be79.pth")
WEIGHING = Remote(
    "https://github.com/richzhang/PerceptualSimilarity/raw/master/lpips/weights/v0.1/alex.pth",
    6009,
    "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
)
NAMES = {"alexnet-owt-7be5be79.pth": ALEXNET, "lpips-0.1-alex.pth": WEIGHING}
WIDTHS = (64, 192, 384, 256, 256)  # channels of the five layers that are compared


class Lpips(nn.Module):
    """The distance of two pictures: 0 for equal ones, some tenths for bad copies; lower is better."""

    shift: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Published names: a flat list of layers, and five 1x1 convolutions to one channel.
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.weighing = nn.ModuleList(nn.Conv2d(width, 1, 1, bias=False) for width in WIDTHS)
        # The mean and spread of ImageNet's pictures, for channels in [-1, 1].
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("spread", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1), persistent=False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], 31 pixels or more each way, to (N,)."""
        distance = torch.zeros(len(a), device=a.device)
        pair = torch.cat([a, b])
        x = (2 * pair - 1 - self.shift) / self.spread
        layers = iter(self.weighing)
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                unit = x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)
                one, other = unit.chunk(2)
                distance = distance + next(layers)((one - other).square()).mean(dim=(1, 2, 3))
        return distance


SMALLEST = 31  # pixels: less leaves the last layers nothing


def load_lpips(cache: Path | None = None) -> Lpips:
    """The metric with its published weights, fetched if need be. Raises WeightsError."""
    folder = cache or default_cache()
    paths = [fetch(mirrored(remote, file), folder / file, "LPIPS") for file, remote in NAMES.items()]
    metric = Lpips()
    try:
        alexnet, weighing = (torch.load(path, map_location="cpu", weights_only=True) for path in paths)
        state = {name: value for name, value in alexnet.items() if name.startswith("features.")}
        state |= {f"weighing.{i}.weight": weighing[f"lin{i}.model.1.weight"] for i in range(len(WIDTHS))}
        metric.load_state_dict(state)
    except UNREADABLE as error:
        files = " and ".join(map(str, paths))
        raise WeightsError(f"{files} do not hold the weights of LPIPS; delete them and run again") from error
    return metric.eval().requires_grad_(False)


def lpips_of(metric: Lpips, a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """The distance of two (H, W, 3) or (H, W) uint8 pictures of one size. Raises ValueError for smaller ones than SMALLEST."""
    if min(a.shape[:2]) < SMALLEST:
        raise ValueError(f"LPIPS needs pictures of {SMALLEST} pixels each way, got {a.shape[1]}x{a.shape[0]}")
    with torch.inference_mode():
        return float(metric(*(as_rgb(picture) for picture in (a, b))))


def as_rgb(picture: NDArray[np.uint8]) -> Tensor:
    """(1, 3, H, W) float32 in [0, 1]; grey as three equal channels."""
    rgb = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
    return as_floats(torch.from_numpy(rgb.copy())).permute(2, 0, 1)[None]
