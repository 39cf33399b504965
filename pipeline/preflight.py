"""What every job makes sure of first: that the model can be had, and that nobody else makes the same result."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from pipeline.config import RunConfig
from pipeline.errors import ConfigError, InterruptedRunError, OutputError, UpscaleError
from pipeline.storage import local_path
from swinir.device import choose_device
from swinir.spec import ModelSpec, load_spec


def refuse_nameless(source: str, destination: str) -> None:
    """ConfigError for what names nothing: an empty path would be the working directory."""
    for role, place in (("source", source), ("destination", destination)):
        if not place or "\0" in place:
            raise ConfigError(f"the {role} is {place!r}, which names nothing; give a path or a URL")


def load_model_spec(config: RunConfig) -> ModelSpec:
    try:
        return load_spec(
            config.model,
            config.weights,
            config.precision,
            config.tile,
            strength=config.strength,
            weights_fidelity=config.weights_fidelity,
            ensemble=config.ensemble,
        )
    except ValueError as error:
        raise ConfigError(" ".join(str(error).split())) from error


def refuse_device(config: RunConfig) -> None:
    """ConfigError where this machine has not the device asked for, and no cluster is to do the work."""
    if not config.address:
        pick_device(config.device)


def pick_device(name: str) -> torch.device:
    """As ``choose_device``; ConfigError for a device that is not there."""
    try:
        return choose_device(name)
    except ValueError as error:
        raise ConfigError(str(error)) from error


@contextmanager
def lease(destination: str, place: str | None = None) -> Iterator[None]:
    """Only one job on a local destination; a second fails at once. The lock, beside ``place``, dies with the process.

    In object stores two jobs do the same work twice and publish the same bytes; first-writer-wins commits keep them apart.
    An OSError of the job becomes an OutputError, or, where a name is too long for any file, a ConfigError.
    """
    path = local_path(place or destination)
    with nullcontext() if path is None else _lock(Path(path), destination):
        try:
            yield
        except OSError as error:
            raise stopped(error, destination) from error


def stopped(error: OSError, destination: str) -> ConfigError | OutputError:
    """The same in our words."""
    where = error.filename or destination
    if error.errno == errno.ENAMETOOLONG:
        return ConfigError(f"{where}: {error.strerror}; use a shorter one")
    return OutputError(f"{where}: {error.strerror or error}; the same command goes on from there")


@contextmanager
def resumable(destination: str, fresh: bool) -> Iterator[None]:
    """What stops in the block goes on by the same command, but without --fresh, which would discard it: then errors say so."""
    try:
        yield
    except (OutputError, InterruptedRunError, KeyboardInterrupt, OSError) as error:
        if not fresh:
            raise
        told = stopped(error, destination) if isinstance(error, OSError) else error
        kind = type(told) if isinstance(told, UpscaleError) else InterruptedRunError
        message = str(told) or "interrupted; the same command goes on from where it was"
        raise kind(message.replace("the same command", "the same command without --fresh")) from error


@contextmanager
def _lock(path: Path, destination: str) -> Iterator[None]:
    folder = path.parent
    lock_path = folder / f".{path.name}.lock"
    lock = FileLock(lock_path, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise ConfigError(f"{destination} is being made by another running command") from error
    except OSError as error:
        raise ConfigError(f"cannot write in {folder}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock_path.unlink(missing_ok=True)
        lock.release()
