"""The strength dial: weights between those of two networks of one architecture, one for fidelity, one to please the eye.

Wang et al., Deep Network Interpolation for Continuous Imagery Effect Transition, arXiv 1811.10515.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from swinir.checkpoint import Checkpoint, WeightsError, describe
from swinir.weights import PUBLISHED, RANDOM, load_checkpoint

# The published models that please the eye, and those that they were fine-tuned from.
FIDELITY: Mapping[str, str] = {"real-x2": "real-psnr-x2", "real-x4": "real-psnr-x4"}


def load_blended(
    name: str,
    weights: str | Path | None = None,
    weights_fidelity: str | Path | None = None,
    strength: float = 1.0,
    cache: Path | None = None,
) -> Checkpoint:
    """(1 - strength) times the fidelity weights plus strength times the model's own; at 0 and 1 exactly one of them.

    ``weights_fidelity`` is a file or URL, or None or "published" for the published pair of the model. Raises ValueError for a
    strength outside [0, 1], WeightsError where there is no pair, or where the two are not of one architecture.
    """
    if weights_fidelity == RANDOM:
        raise WeightsError("random weights are faithful to nothing; name fidelity weights by a file or URL")
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must be between 0 (fidelity) and 1 (the model's own), got {strength:g}")
    own = weights not in (None, PUBLISHED)
    if (weights_fidelity is None and own) or (weights_fidelity in (None, PUBLISHED) and name not in FIDELITY):
        which = f"{name} with weights of its own" if own else name
        pairs = ", ".join(FIDELITY)
        raise WeightsError(f"{which} has no fidelity weights to go towards; name them, or one of {pairs}, which have some")
    if weights_fidelity in (None, PUBLISHED):
        faithful = load_checkpoint(FIDELITY[name], PUBLISHED, cache)
    else:
        faithful = load_checkpoint(name, weights_fidelity, cache)
    pleasing = load_checkpoint(name, weights, cache)
    if faithful.config != pleasing.config:
        ours, theirs = describe(pleasing.config), describe(faithful.config)
        raise WeightsError(
            f"a strength wants one architecture, but the fidelity weights are of {theirs}, the model's of {ours}"
        )
    blended = {key: torch.lerp(faithful.state[key], value, strength) for key, value in pleasing.state.items()}
    return Checkpoint(blended, pleasing.config)
