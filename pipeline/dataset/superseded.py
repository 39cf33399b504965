"""Results of earlier runs, finished or not, that belong to no input any more."""

from __future__ import annotations

import heapq
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq

from pipeline.dataset.index import DAMAGED, NUM_READERS, SCHEMA, moved_outputs, places
from pipeline.dataset.names import INDEX
from pipeline.dataset.outputs import is_packed
from pipeline.dataset.workload import ROWS
from pipeline.stages import in_parallel
from pipeline.storage import Store


def superseded(out: Store, work: Store, wanted: set[str], index: Path, scratch: Path) -> tuple[list[str], list[str], bool]:
    """Held against the new ``index``: keys that have gone, whose results stay; results that are to go; whether all is known.

    To go are those of sources that are bad now or results of another format. ``wanted`` are the files of rows that count;
    others in ``work`` are of shards as they were, of an earlier run or of one that was killed or discarded.
    """
    befores, is_whole = [places_in(work, [key for key in work.list(ROWS) if key not in wanted])], True
    if out.exists(INDEX):
        out.download(INDEX, scratch / "before.parquet")
        befores.append(places(scratch / "before.parquet"))
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


def places_in(work: Store, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """As ``places``, of several files of rows together, where a key may come more than once; damaged files say nothing.

    Memory holds the first key of each file, and those files whose keys overlap.
    """
    with ThreadPoolExecutor(NUM_READERS) as pool:
        found = list(in_parallel(pool, lambda name: (name, _places(work, name)[:1]), names, NUM_READERS))
    return heapq.merge(*(_in_turn(work, name, first[0][0]) for name, first in found if first))


def _in_turn(work: Store, name: str, first: str) -> Iterator[tuple[str, str]]:
    yield first, ""  # the merge takes one of each before it begins: the file is read when this one has had its turn
    yield from _places(work, name)


def _places(work: Store, name: str) -> list[tuple[str, str]]:
    try:
        rows = pq.read_table(io.BytesIO(work.read(name)), schema=SCHEMA, columns=["key", "output"], use_threads=False)
    except DAMAGED:
        return []
    return [(key, output or "") for key, output in zip(rows["key"].to_pylist(), rows["output"].to_pylist(), strict=True)]
