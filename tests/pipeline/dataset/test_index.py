"""The index: one row for every input, sorted, unique, the same bytes however the work was cut; a query is one line."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.dataset import index
from pipeline.dataset.index import Row, merge_index, moved_outputs, places, read_rows, write_rows
from pipeline.errors import OutputError
from pipeline.storage import Store


def rows(start: int, stop: int) -> list[Row]:
    return [
        Row(
            key=f"{i:06d}.png",
            shard="s",
            row=i,
            status="ok" if i % 3 else "decode_error",
            error="" if i % 3 else "damaged, 'so' | \"da\"",
            source_sha256=f"{i:064x}",
            width=i + 1,
            psnr_reduced_db=math.inf if i == 1 else i / 3,
        )
        for i in range(start, stop)
    ]


def store_rows(work: Store, folder: Path, pieces: list[list[Row]]) -> list[str]:
    names = []
    for i, piece in enumerate(pieces):
        write_rows(folder / "piece.parquet", piece)
        names.append(f"rows/{len(pieces)}-{i}.parquet")
        work.upload(folder / "piece.parquet", names[-1])
        (folder / "piece.parquet").unlink()
    return names


def pieces_of(*borders: int) -> list[list[Row]]:
    return [rows(start, stop) for start, stop in pairwise(borders)]


def test_f3_the_index_holds_the_rows_of_all_files_and_counts_them(store_url: str, tmp_path: Path) -> None:
    work = Store(store_url)
    counts = merge_index(work, store_rows(work, tmp_path, pieces_of(0, 40, 41, 41, 100)), tmp_path / "index.parquet")
    assert list(read_rows(tmp_path / "index.parquet")) == rows(0, 100)
    assert list(counts.items()) == [("decode_error", 34), ("ok", 66)]
    metadata = pq.read_metadata(tmp_path / "index.parquet")
    assert metadata.row_group(0).column(0).has_offset_index
    assert metadata.row_group(0).sorting_columns == (pq.SortingColumn(0),)


def test_f3_the_bytes_of_the_index_do_not_depend_on_how_the_work_was_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "GROUP_ROWS", 16)
    work, found = Store(str(tmp_path / "work")), []
    for borders in ((0, 100), (0, 16, 32, 100), (0, 1, 2, 50, 50, 99, 100), tuple(range(101))):
        merge_index(work, iter(store_rows(work, tmp_path, pieces_of(*borders))), tmp_path / "index.parquet")
        found.append((tmp_path / "index.parquet").read_bytes())
    assert len(set(found)) == 1
    metadata = pq.read_metadata(tmp_path / "index.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [16] * 6 + [4]


@pytest.mark.parametrize(
    ("borders", "problem"),
    [(((0, 10), (9, 20)), "'000009.png' twice"), (((10, 20), (0, 5)), "'000000.png' after '000019.png'")],
)
def test_f3_a_key_that_comes_twice_or_out_of_order_is_refused(tmp_path: Path, borders: tuple, problem: str) -> None:
    work = Store(str(tmp_path / "work"))
    names = store_rows(work, tmp_path, [rows(*border) for border in borders])
    with pytest.raises(OutputError, match=problem) as error:
        merge_index(work, names, tmp_path / "index.parquet")
    assert f"in {names[0]} and {names[1]}" in str(error.value)
    assert not (tmp_path / "index.parquet").exists()


def test_f3_rows_of_one_file_must_rise_too(tmp_path: Path) -> None:
    one, two = rows(0, 2)
    for wrong, problem in (([two, one], "after"), ([one, one], "twice")):
        with pytest.raises(OutputError, match=problem):
            write_rows(tmp_path / "rows.parquet", wrong)
        assert not (tmp_path / "rows.parquet").exists()


def test_keys_are_ordered_as_python_orders_them(tmp_path: Path) -> None:
    keys = sorted(["a", "a/b", "a b", "Z", "ü", "東", "\U0001f600", "\uffff", "", "a.b", "a\tb"])
    write_rows(tmp_path / "rows.parquet", [Row(key=key, row=0, status="ok") for key in keys if key])
    assert [row.key for row in read_rows(tmp_path / "rows.parquet", ["key", "row"])] == keys[1:]


def test_an_archive_without_inputs_has_an_empty_index(tmp_path: Path) -> None:
    assert merge_index(Store(str(tmp_path)), [], tmp_path / "index.parquet") == {}
    assert list(read_rows(tmp_path / "index.parquet")) == []


def test_results_that_an_archive_lost_or_has_elsewhere_are_named(tmp_path: Path) -> None:
    old = [replace(row, output=f"{row.key}.jpg") for row in rows(0, 10)]
    write_rows(tmp_path / "old.parquet", old)
    write_rows(tmp_path / "new.parquet", [*old[1:3], replace(old[3], output="x"), *rows(6, 7), *old[7:9], *rows(20, 22)])
    assert list(moved_outputs(places(tmp_path / "old.parquet"), tmp_path / "new.parquet")) == [
        ("000000.png", "000000.png.jpg", None),
        ("000003.png", "000003.png.jpg", "x"),
        ("000004.png", "000004.png.jpg", None),
        ("000005.png", "000005.png.jpg", None),
        ("000006.png", "000006.png.jpg", ""),
        ("000009.png", "000009.png.jpg", None),
    ]
    assert list(moved_outputs(places(tmp_path / "old.parquet"), tmp_path / "old.parquet")) == []


def test_the_index_answers_from_duckdb_and_pandas_in_one_line(tmp_path: Path) -> None:
    pandas, duckdb = pytest.importorskip("pandas"), pytest.importorskip("duckdb")
    path = tmp_path / "_index.parquet"
    write_rows(path, rows(0, 30))
    found = duckdb.sql(f"SELECT status, count(*) FROM '{path}' GROUP BY status ORDER BY status").fetchall()
    assert found == [("decode_error", 10), ("ok", 20)]
    assert pandas.read_parquet(path).groupby("status").size().to_dict() == dict(found)
