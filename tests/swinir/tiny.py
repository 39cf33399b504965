"""Small networks with weights that follow from their names, and test pictures."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from swinir.model import SwinIR, SwinIRConfig
from swinir.train.recipe import TrainConfig

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
GOLDENS = sorted(GOLDEN.glob("*.npz"))

SMALL: dict[str, Any] = {
    "upscale": 2, "in_chans": 3, "depths": (2, 2), "embed_dim": 12, "num_heads": (2, 2),
    "window_size": 8, "upsampler": "pixelshuffledirect",
}  # fmt: skip
NOTHING = dict.fromkeys(
    ("blur_share", "ringing_share", "detour_share", "noise_share", "chroma_share", "comb_share", "still_share", "video_share",
     "again_share"), 0.0,
)  # fmt: skip
SHORT_RUN = TrainConfig(
    model=SwinIRConfig(**(SMALL | {"depths": (2,), "num_heads": (2,)})),
    steps=6, batch_size=2, patch=16, warmup_steps=2, precision="fp32", learning_rate=2e-3,
)  # fmt: skip


def network(**changes: Any) -> SwinIR:
    """SMALL, with changes, under the weights of ``fill``."""
    model = SwinIR(SwinIRConfig(**(SMALL | changes))).eval().requires_grad_(False)
    fill(model)
    return model


def fill(model: SwinIR) -> None:
    """Weights as a function of name and shape, the rule that tests/golden/README.md states."""
    state = model.state_dict()
    for name, value in state.items():
        a = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).standard_normal(tuple(value.shape))
        if name.endswith("relative_position_bias_table"):
            a = 0.5 * a
        elif name.endswith(".bias"):
            a = 0.02 * a
        elif value.ndim == 1:
            a = 1 + 0.1 * a
        else:
            a = a * (0.7 / np.sqrt(np.prod(value.shape[1:])))
        state[name] = torch.from_numpy(a).to(value.dtype)
    model.load_state_dict(state)


def from_golden(path: Path) -> tuple[SwinIR, torch.Tensor, np.ndarray]:
    """The network of a golden, its input and its output."""
    golden = np.load(path)
    model = SwinIR(SwinIRConfig(**json.loads(str(golden["config"])))).eval()
    fill(model)
    return model, torch.from_numpy(golden["input"]), golden["output"]


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8 with smooth parts, edges and some noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / (5 + c) + y / (11 - c)) + ((x // 17 + y // 23) % 2) * 0.8 for c in range(3)]
    levels = np.stack(waves, axis=-1) * 60 + 110 + rng.normal(0, 4, (height, width, 3))
    return np.clip(levels, 0, 255).astype(np.uint8)


def as_tensor(image: np.ndarray) -> torch.Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255


def damaged(x: torch.Tensor) -> torch.Tensor:
    """The batch with something in its first picture that is no number."""
    x = x.clone()
    x[0, 0, 3, 3] = torch.nan
    return x


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """dB for a peak of 1."""
    error = float(((a.double() - b.double()) ** 2).mean())
    return float("inf") if error == 0 else -10 * np.log10(error)
