"""Results of an earlier run that are taken over: each that is there whole, whatever has become of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.dataset.index import read_rows
from pipeline.dataset.known import KnownResults
from pipeline.storage import Store
from tests.pipeline.dataset.archives import Run, encoded, picture, rows


@pytest.fixture
def done(tmp_path: Path, images: Run) -> list[dict[str, str]]:
    """The rows of twenty pictures in several shards."""
    (tmp_path / "in").mkdir()
    for number in range(20):
        (tmp_path / f"in/{number}.png").write_bytes(encoded(picture(number)))
    images(tmp_path / "in", tmp_path / "out", shard_rows=4)
    return rows(tmp_path / "out")


def torn(data: bytes) -> bytes:
    return data[:-20]


def rotten(data: bytes) -> bytes:
    """Its footer is whole, its pages are not."""
    return data[:4] + bytes(2000) + data[2004:]


@pytest.mark.parametrize("damaged", [torn, rotten])
def test_a_damaged_file_of_rows_costs_what_it_held_and_is_read_no_more(
    tmp_path: Path, done: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch, damaged: Callable[[bytes], bytes]
) -> None:
    work = Store(f"{tmp_path}/out/_swinir")
    files = sorted(work.list("rows"))
    assert len(files) > 2
    lost = {row.key for row in read_rows(pa.BufferReader(work.read(files[0])))}
    work.write(files[0], damaged(work.read(files[0])))
    reads: Counter[str] = Counter()
    read = Store.read
    monkeypatch.setattr(Store, "read", lambda store, key: reads.update([key]) or read(store, key))

    known = KnownResults(work, Store(str(tmp_path / "out")), files)
    found = {row["key"] for row in done if known.fetch(row["source_sha256"], tmp_path / "result")}

    assert found == {row["key"] for row in done} - lost
    assert max(reads.values()) <= 2
