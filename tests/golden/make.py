"""Write the goldens beside this file: PYTHONPATH=. python tests/golden/make.py"""

import dataclasses
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "swinir"))

from tiny import network  # noqa: E402

RESTORE = {"upscale": 1, "upsampler": ""}
JPEG = {**RESTORE, "window_size": 7, "img_range": 255.0}
LARGE = {"embed_dim": 16, "resi_connection": "3conv"}
# name: (changes to tiny.SMALL, height, width)
GOLDENS = {
    "classical_x2": ({"upsampler": "pixelshuffle"}, 17, 20),
    "classical_x3": ({"upsampler": "pixelshuffle", "upscale": 3}, 9, 17),
    "classical_x4": ({"upsampler": "pixelshuffle", "upscale": 4}, 9, 12),
    "classical_x8": ({"upsampler": "pixelshuffle", "upscale": 8}, 9, 5),
    "lightweight_x2": ({}, 17, 20),
    "lightweight_x3": ({"upscale": 3}, 9, 17),
    "lightweight_x4": ({"upscale": 4}, 9, 12),
    "real_x2": ({"upsampler": "nearest+conv"}, 17, 20),
    "real_x4": ({"upsampler": "nearest+conv", "upscale": 4}, 9, 12),
    "real_large_x4": ({"upsampler": "nearest+conv", "upscale": 4, **LARGE}, 9, 12),
    "gray_dn": ({**RESTORE, "in_chans": 1}, 17, 24),
    "color_dn": (RESTORE, 16, 24),
    "gray_jpeg": ({**JPEG, "in_chans": 1}, 16, 21),
    "color_jpeg": (JPEG, 14, 22),
}


def main() -> None:
    for name, (changes, height, width) in GOLDENS.items():
        model = network(**changes).double()
        x = np.random.default_rng(len(name)).random((1, model.config.in_chans, height, width), np.float32)
        with torch.inference_mode():
            y = model(torch.from_numpy(x).double())
        config = json.dumps(dataclasses.asdict(model.config))
        np.savez_compressed(HERE / f"{name}.npz", input=x, output=y.numpy().astype(np.float32), config=config)


def write_published_keys(source: Path) -> None:
    """Digest the published names and shapes, a list of half a megabyte, into a line for each model."""
    models = json.loads(source.read_text())
    lines = {name: parameter_digest({k: tuple(v) for k, v in shapes.items()}) for name, shapes in models.items()}
    (HERE / "published_keys.json").write_text(json.dumps(lines, indent=1) + "\n")


def parameter_digest(shapes: dict[str, tuple[int, ...]]) -> str:
    kept = sorted((k, v) for k, v in shapes.items() if not k.endswith(("attn_mask", "relative_position_index")))
    text = "\n".join(f"{name} {shape}" for name, shape in kept)
    return f"{len(kept)} {hashlib.sha256(text.encode()).hexdigest()}"


if __name__ == "__main__":
    main()
    if len(sys.argv) > 1:
        write_published_keys(Path(sys.argv[1]))
