"""Results of shards that have changed since, by the bytes they were made of: what is there is copied and not computed."""

from __future__ import annotations

import hashlib
import tarfile
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.dataset.containers import PackedPictures
from pipeline.dataset.index import DAMAGED, NUM_READERS, SCHEMA, Row, read_rows
from pipeline.dataset.outputs import is_packed, open_packed
from pipeline.errors import MediaError
from pipeline.storage import Store

_NUM_OPEN = 4  # files of rows, and of pictures; shards come in about the order that they had
_GONE = (*DAMAGED, KeyError, MediaError, tarfile.TarError)


class KnownResults:
    """The pictures that files of rows tell of, under the settings of this run. May be used from several threads.

    Nothing is read before the first is asked for; memory holds 12 bytes for each. Damaged files tell of none.
    """

    def __init__(self, work: Store, out: Store, row_files: Sequence[str]) -> None:
        self._work, self._out, self._row_files = work, out, row_files
        self._lock = threading.Lock()
        self._starts: NDArray[np.uint64] | None = None  # of the SHA-256 of sources, sorted
        self._places: NDArray[np.uint32] = np.zeros(0, np.uint32)  # in ``row_files``
        self._rows: OrderedDict[str, dict[str, Row]] = OrderedDict()
        self._packed: OrderedDict[str, tuple[ExitStack, PackedPictures]] = OrderedDict()

    def fetch(self, source_sha256: str, path: Path) -> Row | None:
        """Put the result for those bytes into the file ``path``, and return the row that it had.

        None where there is none, or what is stored is not any more what its row says.
        """
        if not self._row_files:
            return None
        try:
            with self._lock:
                row = self._row(source_sha256)
                if row and is_packed(row.output):
                    path.write_bytes(self._open(row.output).read(row))
            if row is None:
                return None
            if not is_packed(row.output):
                self._out.download(row.output, path)
        except _GONE:
            return None
        with path.open("rb") as file:
            return row if hashlib.file_digest(file, "sha256").hexdigest() == row.output_sha256 else None

    def close(self) -> None:
        """Let go of files; those of pictures that are still asked for are opened again."""
        with self._lock:
            while self._packed:
                self._packed.popitem()[1][0].close()

    def _row(self, source_sha256: str) -> Row | None:
        if self._starts is None:
            self._load()
        assert self._starts is not None
        start = _start(source_sha256)
        index = int(np.searchsorted(self._starts, start))
        if index == len(self._starts) or self._starts[index] != start:
            return None
        key = self._row_files[self._places[index]]
        rows = self._rows.pop(key, None)
        self._rows[key] = rows = self._read(key) if rows is None else rows
        while len(self._rows) > _NUM_OPEN:
            self._rows.popitem(last=False)
        return rows.get(source_sha256)

    def _read(self, key: str) -> dict[str, Row]:
        try:
            stored = read_rows(pa.BufferReader(self._work.read(key)))
            return {row.source_sha256: row for row in stored if row.status == "ok"}
        except DAMAGED:
            return {}

    def _load(self) -> None:
        def starts(key: str) -> list[np.uint64]:
            try:
                data = pa.BufferReader(self._work.read(key))
                table = pq.read_table(data, columns=["source_sha256"], filters=[("status", "==", "ok")], schema=SCHEMA)
            except DAMAGED:
                return []
            return [_start(text) for text in table["source_sha256"].to_pylist()]

        with ThreadPoolExecutor(NUM_READERS) as pool:
            found = [np.array(part, np.uint64) for part in pool.map(starts, self._row_files)]
        places = np.repeat(np.arange(len(found), dtype=np.uint32), [len(part) for part in found])
        joined = np.concatenate(found)
        order = np.argsort(joined, kind="stable")
        self._starts, self._places = joined[order], places[order]

    def _open(self, key: str) -> PackedPictures:
        stack, pictures = self._packed.pop(key, (None, None))
        if stack is None or pictures is None:
            with ExitStack() as opening:
                pictures = opening.enter_context(open_packed(self._out, key))
                stack = opening.pop_all()
        self._packed[key] = stack, pictures
        while len(self._packed) > _NUM_OPEN:
            self._packed.popitem(last=False)[1][0].close()
        return pictures


def _start(sha256: str) -> np.uint64:
    return np.uint64(int(sha256[:16], 16))
