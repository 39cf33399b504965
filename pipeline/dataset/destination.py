"""Where the results of an archive go: whether that can be had, and whether it holds what may not be replaced."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.config import ImagesConfig
from pipeline.dataset.listing import root_of
from pipeline.dataset.names import INDEX, WORK
from pipeline.dataset.planning import CRASHED
from pipeline.dataset.walking import readable
from pipeline.errors import ConfigError
from pipeline.ledger import Ledger
from pipeline.preflight import refuse_nameless
from pipeline.storage import Store, local_path, normal_url

SOURCE = "source.txt"  # which archive the results are of


def check_places(source: str, destination: str) -> None:
    """ConfigError where the destination is the source or holds it, is no folder or lies in none, or where one names nothing."""
    refuse_nameless(source, destination)
    path = local_path(destination)
    names = {normal_url(destination), normal_url(destination) if path is None else os.path.realpath(path)}
    if names & {normal_url(source), normal_url(root_of(source))}:
        raise ConfigError(f"{destination} is where the source itself is; choose another destination")
    if path is not None:
        if not Path(path).parent.is_dir():
            raise ConfigError(f"{Path(path).parent} is not a folder; create it first")
        if Path(path).is_file():
            raise ConfigError(f"{destination} is a file; name a folder for the results")


def make_folder(destination: str) -> None:
    """A local destination, where it is not there yet. Raises ConfigError where it may not be made."""
    path = local_path(destination)
    if path is not None:
        try:
            Path(path).mkdir(exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot write in {Path(path).parent}: {error.strerror or error}") from error


def refuse_taken(source: str, out: Store, ledger: Ledger, config: ImagesConfig) -> None:
    """ConfigError where the destination is not there to be had, or holds what may not be replaced."""
    refuse_no_bucket(out)
    refuse_other_source(ledger.store, source, config.overwrite)
    if not config.overwrite:
        refuse_foreign(out, ledger, config.fresh)


def refuse_foreign(out: Store, ledger: Ledger, fresh: bool) -> None:
    """Never write among files that this program did not make; not even ``fresh`` goes where it never was."""
    if ledger.is_begun() or (fresh and (out.exists(INDEX) or any(True for _ in ledger.store.list()))):
        return
    found = next((key for key in out.list() if not key.startswith((f"{WORK}/", f".{WORK}"))), None)
    if found is not None:
        raise ConfigError(
            f"{out.url} holds files that were not made by this program ({found}); pass --overwrite or choose another"
        )


def refuse_other_source(work: Store, source: str, overwrite: bool) -> None:
    """ConfigError where the results are of another archive: they would go, or mix with those of this one."""
    if overwrite or not work.exists(SOURCE):
        return
    before = os.fsdecode(work.read(SOURCE))
    if before != normal_url(source):
        raise ConfigError(
            f"the results there are of {readable(before)}; choose another destination for {readable(source)}, or pass "
            "--overwrite where it is the same archive that has moved, or is to take its place"
        )


def refuse_no_bucket(out: Store) -> None:
    """ConfigError where the bucket of a destination does not exist, told by a list that is short wherever it does."""
    next(out.list(f"{WORK}/{CRASHED}"), None)


def claim(work: Store, source: str, overwrite: bool) -> bytes | None:
    """Note which archive the results are of, before any other job can; what was noted before, if anything was.

    Raises ConfigError where another job was first, with another archive.
    """
    name = os.fsencode(normal_url(source))
    if work.create_once(SOURCE, name):
        return None
    before = work.read(SOURCE)
    refuse_other_source(work, source, overwrite)
    work.write(SOURCE, name)
    return before
