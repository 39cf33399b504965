"""Results that are not there any more, though an earlier run made them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.dataset.index import NUM_READERS
from pipeline.dataset.listing import list_files
from pipeline.storage import Store


def units_that_lost(work: Store, out: Store, records: Mapping[str, dict[str, Any]]) -> set[str]:
    """The units of whose results one is gone from ``out``, or whose rows are gone from ``work``.

    One listing of ``out``; memory holds 8 bytes for each file there.
    """
    if not records:
        return set()
    there = np.fromiter((hash(file.key) for file in list_files(out.url, containers=())), np.int64)
    there.sort()
    with ThreadPoolExecutor(NUM_READERS) as pool:
        wanted = pool.map(lambda record: _outputs(work, record["rows"]), records.values())
        return {unit_id for unit_id, names in zip(records, wanted, strict=True) if names is None or not _all_in(names, there)}


def _outputs(work: Store, rows: str) -> set[str] | None:
    """The files where the pictures of some rows lie; None where the rows are gone."""
    try:
        table = pq.read_table(io.BytesIO(work.read(rows)), columns=["output"], use_threads=False)
    except FileNotFoundError:
        return None
    return {name for name in table["output"].to_pylist() if name}


def _all_in(names: set[str], there: NDArray[np.int64]) -> bool:
    return bool(np.isin(np.fromiter(map(hash, names), np.int64, len(names)), there, assume_unique=False).all())
