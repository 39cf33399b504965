"""A model as one picklable record, loaded once by a driver and built wherever it is needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from swinir.checkpoint import build_network, from_bytes, to_bytes, weights_digest
from swinir.ensemble import SIZES
from swinir.model import SwinIRConfig
from swinir.presets import baseline, preset
from swinir.strength import load_blended
from swinir.tiling import OVERLAP, OVERLAP_SHALLOW
from swinir.weights import AUTO, load_checkpoint, refuse_weights

PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Everything that decides what a model computes, but for the device.

    ``config`` and ``weights`` (a safetensors file's bytes) are None, and ``weights_sha256`` empty, for the weightless models.
    ``precision`` may still be "auto" and ``tile`` (input pixels) None: the device then decides. ``ensemble`` is 8 for the mean
    over all flips and transposes, else 1.
    """

    name: str
    scale: int
    config: SwinIRConfig | None
    weights: bytes | None
    weights_sha256: str
    precision: str = "auto"
    tile: int | None = None
    ensemble: int = 1

    @property
    def window(self) -> int:
        """Input pixels of whose multiples tiles are."""
        return self.config.window_size if self.config else 1

    @property
    def overlap(self) -> int:
        """Input pixels that neighbouring tiles share, where tiles are long enough."""
        if self.config:
            return OVERLAP if sum(self.config.depths) > 24 else OVERLAP_SHALLOW
        # Each output pixel of bicubic needs two input pixels beyond its own, the others none.
        return 8 if self.name.startswith("bicubic") else 0


def load_spec(
    model: str,
    weights: str | Path | None = None,
    precision: str = "auto",
    tile: int | None = None,
    *,
    strength: float | None = None,
    weights_fidelity: str | Path | None = None,
    ensemble: int = 1,
    cache: Path | None = None,
) -> ModelSpec:
    """Find and check the weights of a model, by preset name or "auto" with a file, and pack them.

    A ``strength`` blends them with fidelity weights, see ``load_blended``. Raises ValueError for an unknown model, precision,
    tile, strength or ensemble, and its subclass WeightsError for weights that cannot be had.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if tile is not None and tile < 1:
        raise ValueError(f"tile must be at least 1 input pixel, got {tile}")
    if ensemble not in SIZES:
        raise ValueError(f"ensemble must be 1, the network alone, or 8, all flips and transposes, got {ensemble!r}")
    if weights_fidelity is not None and strength is None:
        raise ValueError(f"fidelity weights are for a strength; name one between 0 and 1, or leave {weights_fidelity} out")
    if strength is None and model != AUTO and preset(model).weightless:
        refuse_weights(model, weights)
        return ModelSpec(
            name=model,
            scale=preset(model).scale,
            config=None,
            weights=None,
            weights_sha256="",
            precision=precision,
            tile=tile,
            ensemble=ensemble,
        )
    if strength is None:
        checkpoint = load_checkpoint(model, weights, cache)
    else:
        checkpoint = load_blended(model, weights, weights_fidelity, strength, cache)
    return ModelSpec(
        name=Path(str(weights)).stem if model == AUTO else model,
        scale=checkpoint.config.upscale,
        config=checkpoint.config,
        weights=to_bytes(checkpoint.state),
        weights_sha256=weights_digest(checkpoint.state),
        precision=precision,
        tile=tile,
        ensemble=ensemble,
    )


def build_spec(spec: ModelSpec) -> nn.Module:
    """The module of a spec: float32, on the CPU, in evaluation mode."""
    if spec.config is None or spec.weights is None:
        return baseline(spec.name).eval()
    return build_network(spec.config, from_bytes(spec.weights))
