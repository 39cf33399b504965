"""Cutting a stream of items into shards, and the lists that carry them to the workers."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, fields
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset.sources import Item
from pipeline.storage import Store
from pipeline.units import digest

LISTS = "lists"

_SCHEMA = pa.schema([(field.name, pa.int64() if field.name == "size_bytes" else pa.string()) for field in fields(Item)])


def cut_shards(items: Iterable[Item], rows: int) -> Iterator[list[Item]]:
    """The items in order, in runs of about ``rows``, cut by what they are and not by how many came before.

    A shard ends after the first item, from the ``rows / 4``-th on, whose key has a CRC-32 divisible by ``rows``; where there is
    none in ``4 * rows``, after that of the least CRC among them. So a key that comes or goes changes its own shard, and rarely
    the next few.
    A tar file is one shard, or several where it has more than ``4 * rows``; no other item shares it.
    """
    least, most = max(1, rows // 4), 4 * rows
    shard: list[Item] = []
    for item in items:
        if shard and _tar(shard[-1]) != _tar(item):
            yield shard
            shard = []
        shard.append(item)
        if len(shard) >= least and not _tar(item) and _hash(item) % rows == 0:
            yield shard
            shard = []
        elif len(shard) == most:
            cut = most if _tar(item) else min(range(least, most + 1), key=lambda size: _hash(shard[size - 1]))
            yield shard[:cut]
            shard = shard[cut:]
    if shard:
        yield shard


def _tar(item: Item) -> str:
    return item.url if item.member and item.url.lower().endswith(".tar") else ""


def _hash(item: Item) -> int:
    return zlib.crc32(item.key.encode())


def write_list(store: Store, items: Sequence[Item]) -> str:
    """Store a shard's items; returns the key, which is a function of them alone, as are the bytes."""
    key = f"{LISTS}/{digest([astuple(item) for item in items])}.parquet"
    columns: list[Any] = [[getattr(item, field.name) for item in items] for field in fields(Item)]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, schema=_SCHEMA), sink, compression="zstd")
    store.write(key, sink.getvalue().to_pybytes())
    return key


def read_list(store: Store, key: str) -> list[Item]:
    """The items that ``write_list`` stored."""
    table = pq.read_table(pa.BufferReader(store.read(key)))
    return [Item(**row) for row in table.to_pylist()]
