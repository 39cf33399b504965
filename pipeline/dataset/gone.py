"""Results that are not there any more, though an earlier run made them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.dataset.index import DAMAGED, NUM_READERS
from pipeline.dataset.listing import list_files
from pipeline.dataset.walking import is_hidden
from pipeline.stages import in_parallel
from pipeline.storage import Store


def units_that_lost(work: Store, out: Store, records: Mapping[str, dict[str, Any]]) -> set[str]:
    """The units of whose results one is gone from ``out``, or whose rows are gone from ``work`` or damaged there.

    One listing of ``out``; memory holds 8 bytes for each file there. Hidden results, of hidden files that were named, are not
    looked for.
    """
    if not records:
        return set()
    there = np.fromiter((hash(file.key) for file in list_files(out.url, containers=())), np.int64)
    there.sort()
    with ThreadPoolExecutor(NUM_READERS) as pool:
        wanted = in_parallel(pool, lambda record: _outputs(work, record["rows"]), records.values(), NUM_READERS)
        return {unit_id for unit_id, names in zip(records, wanted, strict=True) if names is None or not _all_in(names, there)}


def _outputs(work: Store, rows: str) -> set[str] | None:
    """The files where the pictures of some rows lie; None where the rows cannot be had."""
    try:
        table = pq.read_table(io.BytesIO(work.read(rows)), columns=["output"], use_threads=False)
    except DAMAGED:
        return None
    return {name for name in table["output"].to_pylist() if name and not any(map(is_hidden, name.split("/")))}


def _all_in(names: set[str], there: NDArray[np.int64]) -> bool:
    wanted = np.fromiter(map(hash, names), np.int64, len(names))
    if not len(there):
        return not names
    return bool((there[np.minimum(there.searchsorted(wanted), len(there) - 1)] == wanted).all())
