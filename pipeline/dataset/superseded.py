"""Results of earlier runs, finished or not, that belong to no input any more."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset.index import DAMAGED, SCHEMA, moved_outputs, places
from pipeline.dataset.names import INDEX
from pipeline.dataset.outputs import is_packed
from pipeline.dataset.workload import ROWS
from pipeline.storage import Store


def superseded(out: Store, work: Store, wanted: set[str], index: Path, scratch: Path) -> tuple[list[str], list[str], bool]:
    """Held against the new ``index``: keys that have gone, whose results stay; results that are to go; whether all is known.

    To go are those of sources that are bad now or results of another format. ``wanted`` are the files of rows that count;
    others in ``work`` are of shards as they were, of an earlier run or of one that was killed.
    """
    befores, is_whole = [], True
    if out.exists(INDEX):
        out.download(INDEX, scratch / "before.parquet")
        befores.append(scratch / "before.parquet")
    stale = [key for key in work.list(ROWS) if key not in wanted]
    if stale:
        befores.append(joined(work, stale, scratch / "stale.parquet"))
    removed, unwanted = set(), set()
    for before in befores:
        try:
            for key, old, new in moved_outputs(before, index):
                if old and new is None:
                    removed.add(key)
                elif old and not is_packed(old):
                    unwanted.add(old)
        except DAMAGED:
            is_whole = False
    if unwanted:
        unwanted -= {place for _, place in places(index)}  # by now perhaps another input's
    return sorted(removed), sorted(unwanted), is_whole


def joined(work: Store, names: Iterable[str], target: Path) -> Path:
    """What several files of rows say of outputs, by their keys, which may come more than once; damaged files say nothing."""
    columns = ["key", "row", "status", "output"]
    tables = [SCHEMA.empty_table().select(columns)]
    for name in names:
        try:
            tables.append(pq.read_table(io.BytesIO(work.read(name)), schema=SCHEMA, columns=columns, use_threads=False))
        except DAMAGED:
            continue
    pq.write_table(pa.concat_tables(tables).sort_by("key"), target)
    return target
