"""Where a model's weights come from: bundled, named by the user, or the published file fetched once and checked."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import filelock
import platformdirs
from torch import nn

from swinir.checkpoint import Checkpoint, WeightsError, build_network, describe, random_state, read_checkpoint
from swinir.presets import MODEL_ZOO, Preset, baseline, preset, presets_of

BUNDLED = Path(__file__).with_name("weights")
RANDOM = "random"  # in place of a file: seeded random weights
PUBLISHED = "published"  # in place of a file: what the authors published, also where the package carries weights of its own
AUTO = "auto"  # in place of a model: whatever the named file holds
ATTEMPTS = 3
TIMEOUT_S = 30.0
RETRY_S = 0.25
LOCK_TIMEOUT_S = 1800.0
CHUNK = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Remote:
    """A file on a server, and what is known of it: None where nobody recorded it."""

    url: str
    size_bytes: int | None = None
    sha256: str | None = None


def default_cache() -> Path:
    """The user's cache folder for this package; SWINIR_CACHE names another."""
    return Path(os.environ.get("SWINIR_CACHE") or platformdirs.user_cache_dir("swinir"))


def load_model(name: str, weights: str | Path | None = None, cache: Path | None = None) -> nn.Module:
    """The network of a preset in evaluation mode.

    ``weights`` is a file, an http(s) URL, "published", "random" or None for the preset's own.

    Float32 on the CPU; (N, C, H, W) in [0, 1] in and out. "auto" as the name takes the architecture from the file.
    Raises ValueError for an unknown name, WeightsError where the weights cannot be had or do not fit.
    """
    if name != AUTO and preset(name).config is None:
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
    if asked.config is None:
        raise WeightsError(f"{name} has no weights")
    if weights == RANDOM:
        return Checkpoint(random_state(asked.config), asked.config)
    path = resolve(asked, weights, cache)
    key = asked.published.state_key if asked.published and path.name == asked.published.file else None
    found = read_checkpoint(path, key)
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
        raise WeightsError(f"{asked.name} has no weights")
    remote = Remote(asked.published.url, asked.published.size_bytes, asked.published.sha256)
    return fetch(remote, cached_file(asked, cache), asked.name)


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


def fetch(remote: Remote, path: Path, what: str) -> Path:
    """Make sure ``path`` holds the remote file, whole and unaltered; it appears under its name only when it does.

    Where size and digest were never published, those of the first download are recorded beside the file and held to
    afterwards. Safe against other processes; a cache that is complete may be read-only. Raises WeightsError.
    """
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(f"{path}.lock", timeout=LOCK_TIMEOUT_S):
                if not path.exists():
                    _download(remote, path, what)
    except filelock.Timeout as error:
        raise WeightsError(f"another process holds {path}.lock; wait for it, or delete the lock if it is gone") from error
    except OSError as error:
        raise WeightsError(f"cannot write {path} ({error}); set SWINIR_CACHE to a folder that can be written") from error
    if problem := _difference(path, _recorded(remote, path)):
        raise WeightsError(f"{path} is not the file that {what} needs ({problem}); delete it and run again")
    return path


def _download(remote: Remote, path: Path, what: str) -> None:
    part = path.with_name(path.name + ".part")
    try:
        _receive_patiently(remote.url, part, path, what)
        if problem := _not_weights(part) or _difference(part, remote):
            raise WeightsError(f"{remote.url} did not give the weights of {what}: {problem}; put the right file at {path}")
        if remote.sha256 is None:
            seen = {"url": remote.url, "size": part.stat().st_size, "sha256": file_sha256(part)}
            _record_path(path).write_text(json.dumps(seen))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _receive_patiently(url: str, part: Path, path: Path, what: str) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _receive(url, part)
            return
        except (OSError, http.client.HTTPException) as error:
            refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if isinstance(error, urllib.error.HTTPError):
                error.close()  # it is the response, with its socket
            if refused or attempt == ATTEMPTS:
                reason = f"{path.name}, the weights of {what}, cannot be downloaded ({error})"
                raise WeightsError(f"{reason}: fetch {url} elsewhere and put it at {path}") from error
            time.sleep(RETRY_S * 2**attempt)


def _receive(url: str, part: Path) -> None:
    """Write the body of ``url`` to ``part``. Raises OSError or HTTPException where it is cut short."""
    with contextlib.closing(urllib.request.urlopen(url, timeout=TIMEOUT_S)) as response, part.open("wb") as file:
        received = 0
        while chunk := response.read(CHUNK):
            file.write(chunk)
            received += len(chunk)
        announced = response.headers.get("Content-Length")
    if announced is not None and received != int(announced):  # read(n) does not notice a connection that ends early
        raise ConnectionError(f"{received} of {announced} bytes arrived")


def _not_weights(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        return "the file is empty"
    if head.lstrip()[:1] == b"<":
        return "it is a web page"
    return ""


def _difference(path: Path, expected: Remote) -> str:
    """How the file differs from what is known of it, in words; empty where it does not."""
    size = path.stat().st_size
    if expected.size_bytes not in (None, size):
        return f"{size} bytes instead of {expected.size_bytes}"
    if expected.sha256 is not None and (sha := file_sha256(path)) != expected.sha256:
        return f"sha256 {sha} instead of {expected.sha256}"
    return ""


def _record_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _recorded(remote: Remote, path: Path) -> Remote:
    """What is known of a cached file: what was published, or what was seen when it was fetched."""
    if remote.sha256 is not None or not _record_path(path).exists():
        return remote
    record: Mapping[str, str | int] = json.loads(_record_path(path).read_text())
    return Remote(remote.url, int(record["size"]), str(record["sha256"]))


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
