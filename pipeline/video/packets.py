"""Files of encoded packets (Arrow IPC): exact times in any time base, read and written as streams."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

SCHEMA = pa.schema([("pts", pa.int64()), ("key", pa.bool_()), ("data", pa.large_binary())])
BATCH_BYTES = 8 << 20


class StoredPacket(NamedTuple):
    pts: int
    key: bool
    data: bytes


class PacketWriter:
    """Packets in decode order into a file; memory holds a few megabytes of them."""

    def __init__(self, path: Path) -> None:
        self._file = pa.OSFile(os.fsencode(path), "wb")
        self._writer = pa.ipc.new_file(self._file, SCHEMA)
        self._batch: list[StoredPacket] = []
        self._batch_bytes = 0

    def write(self, packet: StoredPacket) -> None:
        self._batch.append(packet)
        self._batch_bytes += len(packet.data)
        if self._batch_bytes >= BATCH_BYTES:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()
        self._file.close()

    def _flush(self) -> None:
        if self._batch:
            columns = [
                pa.array(column, field.type) for column, field in zip(zip(*self._batch, strict=True), SCHEMA, strict=True)
            ]
            self._writer.write_batch(pa.record_batch(columns, schema=SCHEMA))
        self._batch, self._batch_bytes = [], 0


def read_packets(path: Path) -> Iterator[StoredPacket]:
    """The packets of a file in decode order."""
    with pa.memory_map(os.fsencode(path)) as file:
        reader = pa.ipc.open_file(file)
        for i in range(reader.num_record_batches):
            batch = reader.get_batch(i)
            for pts, key, data in zip(*(column for column in batch.columns), strict=True):
                yield StoredPacket(pts.as_py(), key.as_py(), data.as_py())


def reorder_depth(pts_in_decode_order: Sequence[int]) -> int:
    """By how many frames the decoder runs ahead of presentation: the delay that DTS need (facts: the largest i - rank)."""
    rank = {pts: i for i, pts in enumerate(sorted(pts_in_decode_order))}
    return max((i - rank[pts] for i, pts in enumerate(pts_in_decode_order)), default=0)
