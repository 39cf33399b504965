"""What is done: one create-once record per unit, in the output store, so that anything else may die."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipeline.errors import ConfigError
from pipeline.storage import Store
from pipeline.units import as_json

_MANIFEST = "run.json"
_COMMITS = "commits"
_QUARANTINE = "quarantine"
_NUM_READERS = 32


class Ledger:
    """The records of one run, under one store. Picklable; workers commit, the driver reads.

    A commit counts from the moment its record exists; a unit with both records is committed.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def begin(self, manifest: dict[str, Any]) -> bool:
        """Claim the store for the run that ``manifest`` (JSON data) describes; True where it is new, False to resume.

        Raises ConfigError, naming the first difference, where the store holds another run.
        """
        if self.store.create_once(_MANIFEST, _encode(manifest)):
            return True
        self.refuse_other(manifest)
        return False

    def is_begun(self) -> bool:
        """Whether the store holds a run."""
        return self.store.exists(_MANIFEST)

    def refuse_other(self, manifest: dict[str, Any]) -> None:
        """ConfigError, naming the first difference, where the store holds a run that ``manifest`` does not describe."""
        theirs, ours = json.loads(self.store.read(_MANIFEST)), json.loads(_encode(manifest))
        different = first_difference(theirs, ours)
        if different is not None:
            field, old, new = different
            raise ConfigError(
                f"{self.store.url} holds another run: {field} was {json.dumps(old)} and is now {json.dumps(new)}; "
                "use --fresh to discard it, or another destination"
            )

    def commit(self, unit_id: str, record: dict[str, Any]) -> bool:
        """Record that a unit is done; False where another attempt was first, whose record then stands."""
        if self.store.create_once(_key(_COMMITS, unit_id), _encode(record)):
            return True
        # The answer to our own successful request may have been lost and the request repeated.
        return self.record(unit_id) == _decode(_encode(record))

    def record(self, unit_id: str) -> dict[str, Any] | None:
        """The commit record of one unit, or None."""
        try:
            return _decode(self.store.read(_key(_COMMITS, unit_id)))
        except FileNotFoundError:
            return None

    def forget(self, unit_id: str) -> None:
        """Take back a commit whose output turned out to be damaged; the unit is done again."""
        self.store.delete(_key(_COMMITS, unit_id))

    def committed(self) -> dict[str, dict[str, Any]]:
        """The commit records by unit id, in the order of the ids, from one fresh listing."""
        return dict(self._records(_COMMITS))

    def quarantine(self, unit_id: str, evidence: list[str]) -> None:
        """Record why a unit was given up, one line per attempt."""
        self.store.write(_key(_QUARANTINE, unit_id), _encode({"unit": unit_id, "evidence": evidence}))

    def quarantined(self) -> dict[str, list[str]]:
        """The evidence by unit id."""
        return {unit_id: list(record["evidence"]) for unit_id, record in self._records(_QUARANTINE)}

    def clear_quarantine(self) -> None:
        """Let the next run try the units that were given up."""
        self.store.delete_all(_QUARANTINE)

    def discard(self) -> None:
        """Forget the run. The manifest goes last: a discard that was cut short is refused or repeated, never resumed."""
        self.store.delete_all(_COMMITS)
        self.store.delete_all(_QUARANTINE)
        self.store.delete(_MANIFEST)

    def _records(self, folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
        keys = sorted(key for key in self.store.list(folder) if key.endswith(".json"))
        with ThreadPoolExecutor(_NUM_READERS) as pool:
            for key, data in zip(keys, pool.map(self.store.read, keys), strict=True):
                yield key.rpartition("/")[2].removesuffix(".json"), _decode(data)


def first_difference(old: object, new: object, path: str = "") -> tuple[str, object, object] | None:
    """The dotted name and both values of the first field, in sorted order, in which two pieces of JSON data differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            found = first_difference(old.get(name), new.get(name), f"{path}.{name}" if path else name)
            if found:
                return found
        return None
    return None if old == new else (path or "the manifest", old, new)


def _key(folder: str, unit_id: str) -> str:
    return f"{folder}/{unit_id}.json"


def _encode(value: dict[str, Any]) -> bytes:
    return as_json(value, sort_keys=True)


def _decode(data: bytes) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(data)
    return value
