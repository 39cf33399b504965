"""One row for every input: the schema of rows, the files that workers write them to, and the index that joins those."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import OutputError
from pipeline.stages import in_parallel
from pipeline.storage import Store

NUM_READERS = 32
DAMAGED = (pa.ArrowInvalid, OSError)  # what a damaged Parquet file raises; pages that are damaged are an OSError
GROUP_ROWS = 1 << 12  # more, and what reads and writes them needs memory to match


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What became of one input. What is not known is "" or None here, and null in a file."""

    key: str
    shard: str = ""
    row: int  # in the shard
    status: str = ""
    error: str = ""
    source_sha256: str = ""
    output_sha256: str = ""
    output: str = ""  # the file that holds the picture, relative to the index
    width: int | None = None
    height: int | None = None
    output_width: int | None = None
    output_height: int | None = None
    format: str = ""
    output_format: str = ""
    source_bytes: int | None = None
    output_bytes: int | None = None
    model: str = ""
    psnr_reduced_db: float | None = None
    colour_drift: float | None = None  # 8-bit codes


_TYPES = {
    "key": pa.string(),
    "shard": pa.string(),
    "row": pa.int64(),
    "status": pa.string(),
    "error": pa.string(),
    "source_sha256": pa.string(),
    "output_sha256": pa.string(),
    "output": pa.string(),
    "width": pa.int32(),
    "height": pa.int32(),
    "output_width": pa.int32(),
    "output_height": pa.int32(),
    "format": pa.string(),
    "output_format": pa.string(),
    "source_bytes": pa.int64(),
    "output_bytes": pa.int64(),
    "model": pa.string(),
    "psnr_reduced_db": pa.float64(),
    "colour_drift": pa.float64(),
}
SCHEMA = pa.schema([pa.field(name, type_, name not in ("key", "row", "status")) for name, type_ in _TYPES.items()])


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Store rows in the order of their keys. Raises OutputError as ``merge_index`` does."""
    with _IndexWriter(path) as writer:
        writer.add(_table(rows), path.name)


def read_rows(file: Path | pa.BufferReader, columns: list[str] | None = None) -> Iterator[Row]:
    """The rows of a file in order, a few at a time; of ``columns``, which must name key and row, where not all are wanted."""
    with pq.ParquetFile(file, pre_buffer=False) as opened:
        for batch in opened.iter_batches(GROUP_ROWS, columns=columns):
            for values in batch.to_pylist():
                yield Row(**{name: value for name, value in values.items() if value is not None})


def merge_index(work: Store, row_files: Iterable[str], target: Path) -> Counter[str]:
    """Join files of rows, given in the order of their keys, into one; how many rows have which status.

    Memory holds one row group, and the bytes depend on the rows alone, not on how they were spread over files. Raises
    OutputError, naming the key and the files, where a key comes twice or out of order; there is no ``target`` then.
    """
    counts: Counter[str] = Counter()
    with ThreadPoolExecutor(NUM_READERS) as pool, _IndexWriter(target) as writer:
        # the files of a small archive are known at once, those of a large one are fetched a few ahead
        for name, data in in_parallel(pool, lambda name: (name, work.read(name)), row_files, NUM_READERS):
            rows = pq.read_table(io.BytesIO(data), schema=SCHEMA, use_threads=False)
            writer.add(rows, name)
            for found in pc.value_counts(rows["status"]).to_pylist():
                counts[found["values"]] += found["counts"]
    return Counter(dict(sorted(counts.items())))


def moved_outputs(old: Iterable[tuple[str, str]], new: Path) -> Iterator[tuple[str, str, str | None]]:
    """The keys of ``old``, in order, that have their result in another place in a newer index, with the two places.

    "" is no place, and None is where the newer index does not have the key.
    """
    right = places(new)
    other, place = next(right, ("", ""))
    for key, before in old:
        while other and other < key:
            other, place = next(right, ("", ""))
        if key != other:
            yield key, before, None
        elif before != place:
            yield key, before, place


def places(path: Path) -> Iterator[tuple[str, str]]:
    """Of the rows of a file in order, the key and where the result is."""
    return ((row.key, row.output) for row in read_rows(path, ["key", "row", "status", "output"]))


def _table(rows: Iterable[Row]) -> pa.Table:
    columns: dict[str, list[Any]] = {field.name: [] for field in fields(Row)}
    for row in rows:
        for name, values in columns.items():
            value = getattr(row, name)
            values.append(None if value == "" else value)
    return pa.table(columns, schema=SCHEMA)


class _IndexWriter:
    """A file of rows whose keys rise, in row groups of a fixed length whatever the pieces it is written in."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer = pq.ParquetWriter(
            path,
            SCHEMA,
            compression="zstd",
            use_dictionary=["shard", "status", "error", "format", "output_format", "model"],
            write_page_index=True,
            sorting_columns=[pq.SortingColumn(SCHEMA.get_field_index("key"))],
        )
        self._waiting: list[pa.Table] = []
        self._num_waiting = 0
        self._last: tuple[str, str] | None = None  # key, and the file it came from

    def __enter__(self) -> _IndexWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self._flush(1)
        self._writer.close()
        if kind is not None:
            self._path.unlink(missing_ok=True)

    def add(self, rows: pa.Table, name: str) -> None:
        if not rows.num_rows:
            return
        keys = rows["key"].combine_chunks()
        first = keys[0].as_py()
        if self._last is not None and self._last[0] >= first:
            _refuse(self._last[0], first, f"{self._last[1]} and {name}")
        falls = pc.index(pc.less(keys[:-1], keys[1:]), False).as_py()
        if falls >= 0:
            _refuse(keys[falls].as_py(), keys[falls + 1].as_py(), name)
        self._last = keys[-1].as_py(), name
        self._waiting.append(rows)
        self._num_waiting += rows.num_rows
        self._flush(GROUP_ROWS)

    def _flush(self, at_least: int) -> None:
        if self._num_waiting < at_least:
            return
        # one chunk a column, since page borders follow chunks
        table = pa.concat_tables(self._waiting).combine_chunks()
        whole = table.num_rows if at_least == 1 else table.num_rows - table.num_rows % GROUP_ROWS
        for start in range(0, whole, GROUP_ROWS):
            self._writer.write_table(table.slice(start, min(GROUP_ROWS, whole - start)).combine_chunks(), GROUP_ROWS)
        self._waiting, self._num_waiting = [table.slice(whole)], table.num_rows - whole


def _refuse(before: str, after: str, where: str) -> None:
    if before == after:
        raise OutputError(f"the index has the key {before!r} twice, in {where}; run with --fresh")
    raise OutputError(f"the index has the key {after!r} after {before!r}, in {where}; run with --fresh")
