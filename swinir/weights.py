"""Where a model's weights come from: bundled, named by the user, or the published file fetched once and checked."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from urllib.parse import urlsplit

from torch import nn

from swinir.checkpoint import Checkpoint, WeightsError, build_network, describe, random_state, read_checkpoint
from swinir.download import Remote, fetch, mirrored
from swinir.presets import MODEL_ZOO, Preset, baseline, preset, presets_of

BUNDLED = Path(__file__).with_name("weights")
RANDOM = "random"  # in place of a file: seeded random weights
PUBLISHED = "published"  # in place of a file: what the authors published, also where the package carries weights of its own
AUTO = "auto"  # in place of a model: whatever the named file holds


def default_cache() -> Path:
    """The user's cache folder for this package; SWINIR_CACHE names another."""
    if named := os.environ.get("SWINIR_CACHE"):
        return Path(os.path.expanduser(named))  # in quotes, or from a file, no shell has done it
    import platformdirs  # which a machine with PyTorch and little else does without

    return Path(platformdirs.user_cache_dir("swinir"))


def load_model(name: str, weights: str | Path | None = None, cache: Path | None = None) -> nn.Module:
    """The network of a preset in evaluation mode.

    ``weights`` is a file, an http(s) URL, "published", "random" or None for the preset's own.

    Float32 on the CPU; (N, C, H, W) in [0, 1] in and out. "auto" as the name takes the architecture from the file.
    Raises ValueError for an unknown name, WeightsError where the weights cannot be had or do not fit.
    """
    if name != AUTO and preset(name).weightless:
        refuse_weights(name, weights)
        return baseline(name).eval()
    checkpoint = load_checkpoint(name, weights, cache)
    return build_network(checkpoint.config, checkpoint.state)


def load_checkpoint(name: str, weights: str | Path | None = None, cache: Path | None = None) -> Checkpoint:
    """The weights of a preset that has some, checked to be of its architecture. Raises as ``load_model``."""
    if name == AUTO:
        if weights is None or weights == RANDOM:
            raise WeightsError("the model 'auto' is whatever a weights file holds; name the file, or a model")
        return read_checkpoint(locate(weights, cache))
    asked = preset(name)
    if asked.weightless:
        raise WeightsError(f"{name} has no weights")
    if weights == RANDOM:
        if asked.config is None:
            raise WeightsError(f"only its file says what network {name} is; leave the weights out, or name the file")
        return Checkpoint(random_state(asked.config), asked.config)
    path = resolve(asked, weights, cache)
    key = asked.published.state_key if asked.published and path.name == asked.published.file else None
    found = read_checkpoint(path, key)
    if asked.config is None:
        if found.config.upscale != asked.scale:
            raise WeightsError(f"{path} holds {describe(found.config)}, but {name} enlarges x{asked.scale}; ask for 'auto'")
        return found
    # img_range leaves no trace in a file; the preset knows it.
    if dataclasses.replace(found.config, img_range=asked.config.img_range) != asked.config:
        same = presets_of(found.config)
        remedy = f"ask for {same[0]!r} to use it" if same else "ask for the model 'auto' to use it"
        raise WeightsError(f"{path} holds {describe(found.config)}, but {name} is {describe(asked.config)}; {remedy}")
    return Checkpoint(found.state, asked.config)


def refuse_weights(name: str, weights: str | Path | None) -> None:
    """Raise WeightsError where weights were named for a model that has none."""
    if weights is not None and weights != RANDOM:
        raise WeightsError(f"{name} has no weights, got {str(weights)!r}; leave the weights out or name another model")


def resolve(model: Preset | str, weights: str | Path | None = None, cache: Path | None = None) -> Path:
    """The file with a preset's weights: the one named, else the bundled one, else the published one, fetched if need be.

    Raises WeightsError.
    """
    asked = preset(model) if isinstance(model, str) else model
    if weights not in (None, PUBLISHED):
        return locate(weights, cache)
    bundled = bundled_file(asked)
    if bundled.exists() and weights is None:
        return bundled
    if asked.published is None:
        raise WeightsError(f"{asked.name} has no weights to download; leave the weights out or name a file")
    known = asked.published
    remote = Remote(known.url, known.size_bytes, known.sha256, known.page)
    return fetch(mirrored(remote, known.file), cached_file(asked, cache), asked.name)


def bundled_file(model: Preset) -> Path:
    """Where this package carries the weights of a preset, if it does."""
    return BUNDLED / f"{model.name}.safetensors"


def cached_file(model: Preset, cache: Path | None = None) -> Path:
    """Where the published file of a preset is kept once fetched, or may be put by hand."""
    if model.published is None:
        raise WeightsError(f"{model.name} has no weights")
    return (cache or default_cache()) / model.published.file


def locate(weights: str | Path, cache: Path | None = None) -> Path:
    """The local path of a file the user named by path or http(s) URL."""
    parts = urlsplit(str(weights))
    if parts.scheme in ("http", "https"):
        key = hashlib.sha256(str(weights).encode()).hexdigest()[:12]
        file = f"{key}-{Path(parts.path).name or 'weights'}"
        return fetch(_known(str(weights)), (cache or default_cache()) / file, str(weights))
    if "://" in str(weights):
        raise WeightsError(f"weights are read from a local file or an http(s) URL, got {weights}; copy the file here first")
    path = Path(weights).expanduser()
    if not path.is_file():
        raise WeightsError(f"weights file {path} does not exist or is not a file")
    return path


def _known(url: str) -> Remote:
    """A URL with the size and digest that the model zoo has for it, if any."""
    zoo = json.loads(MODEL_ZOO.read_text())
    rows = {url: row for row in zoo["community"] for url in row["urls"]} | {row["url"]: row for row in zoo["official"]}
    row = rows.get(url, {})
    return Remote(url, row.get("size"), row.get("sha256"))
