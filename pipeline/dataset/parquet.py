"""A column of pictures, or of their URLs, in a Parquet file, read a few rows at a time."""

from __future__ import annotations

import json
import re
import threading
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset.reading import NoPictureError, explained, opened
from pipeline.errors import ConfigError

_BUFFER_BYTES = 1 << 20
_BATCH_BYTES = 8 << 20
_BATCH_ROWS = 64
_ROWS_KEPT = 32  # that were passed over: readers run in parallel, and ask for rows only roughly in order
_NUM_CURSORS = 4
_URL_NAME = re.compile(r"(^|_)ur[li]s?$", re.IGNORECASE)


class PictureColumn:
    """The pictures of one file by row number. May be used from several threads; errors are raised as ``reading.explained``."""

    def __init__(self, url: str, image_column: str | None, url_column: str | None) -> None:
        self._url = url
        self._lock = threading.Lock()
        with explained(url), ExitStack() as stack:
            # Buffered and not fetched ahead: a row group may be larger than memory.
            file = stack.enter_context(opened(url))
            self._file = pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER_BYTES)
            self.name = choose_column(self._file.schema_arrow, url, image_column, url_column)
            self.holds_urls = _kind(self._file.schema_arrow.field(self.name).type) == "url"
            self._open = stack.pop_all()
        groups = [self._file.metadata.row_group(number) for number in range(self._file.num_row_groups)]
        self._starts = [0, *accumulate(group.num_rows for group in groups)]
        self._sizes = [_bytes_of(group, self.name) // max(1, group.num_rows) for group in groups]
        self._cursors: list[_Cursor] = []

    def sizes(self) -> Iterator[int]:
        """For each row the mean bytes of a picture in its row group."""
        for number, size in enumerate(self._sizes):
            for _ in range(self._starts[number], self._starts[number + 1]):
                yield size

    def values(self) -> Iterator[str | None]:
        """A column of URLs, from the first row."""
        for group in range(len(self._sizes)):
            batches = self._batches(group, 4096)
            while True:
                with explained(self._url):
                    batch = next(batches, None)
                if batch is None:
                    break
                yield from batch.column(0).to_pylist()

    def picture(self, row: int) -> bytes | str | None:
        """The bytes in a row, or, where it has none, its URL or path, or None. Cheap where rows are asked for in order."""
        with self._lock, explained(self._url):
            group = bisect_right(self._starts, row) - 1
            usable = [cursor for cursor in self._cursors if cursor.group == group and cursor.can_reach(row)]
            cursor = max(usable, key=lambda cursor: (row in cursor.passed, cursor.next_row), default=None)
            if cursor is None:
                num_rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, self._sizes[group])))
                cursor = _Cursor(group, self._starts[group], self._batches(group, num_rows))
            else:
                self._cursors.remove(cursor)  # for good where reading fails
            value: Any = cursor.read(row)
            self._cursors = [cursor, *self._cursors[: _NUM_CURSORS - 1]]
        if isinstance(value, dict):
            value = value.get("path") if value["bytes"] is None else value["bytes"]
        picture: bytes | str | None = value
        return picture

    def _batches(self, group: int, num_rows: int) -> Iterator[Any]:
        batches: Iterator[Any] = self._file.iter_batches(num_rows, [group], [self.name], use_threads=False)
        return batches


class _Cursor:
    """A place in one row group. Rows are decoded up to the one that is asked for; some that were passed over are kept."""

    def __init__(self, group: int, start: int, batches: Iterator[Any]) -> None:
        self.group, self.next_row = group, start
        self._batches = batches
        self.passed: dict[int, Any] = {}

    def can_reach(self, row: int) -> bool:
        return row >= self.next_row or row in self.passed

    def read(self, row: int) -> Any:  # noqa: ANN401 - what the column holds
        while self.next_row <= row:
            column = next(self._batches).column(0)
            for index in range(max(0, row - _ROWS_KEPT - self.next_row), len(column)):
                self.passed[self.next_row + index] = column[index].as_py()
            self.next_row += len(column)
        for old in [number for number in self.passed if number < row - _ROWS_KEPT]:
            del self.passed[old]
        return self.passed.pop(row)


def choose_column(schema: Any, url: str, image_column: str | None, url_column: str | None) -> str:  # noqa: ANN401
    """The column of pictures: the one that was asked for, or the only one that can be meant.

    That is, in this order, a Hugging Face image feature, a struct with ``bytes``, binary, or strings with a name like
    ``image_url``. Raises ConfigError where there are several or the one asked for is none, NoPictureError where there is none.
    """
    kinds: dict[str, str] = {field.name: _kind(field.type) for field in schema}
    columns = ", ".join(kinds) or "none"
    candidates = [
        [name for name in _image_features(schema) if kinds.get(name)],
        [name for name, kind in kinds.items() if kind == "struct"],
        [name for name, kind in kinds.items() if kind == "bytes"],
        [name for name, kind in kinds.items() if kind == "url" and _URL_NAME.search(name)],
    ]
    names = next(filter(None, candidates), [])
    asked, wanted = (url_column, {"url"}) if url_column else (image_column, {"struct", "bytes", "url"})
    if asked:
        if kinds.get(asked) in wanted:
            return asked
        if asked not in kinds and not names:
            raise NoPictureError(f"{url} has no column {asked!r}, nor any of pictures; its columns are {columns}")
        what = f"no column {asked!r}" if asked not in kinds else f"{'no URLs' if url_column else 'no pictures'} in {asked!r}"
        raise ConfigError(f"{url} has {what}; its columns are {columns}")
    if len(names) == 1:
        return names[0]
    if names:
        raise ConfigError(f"{url} has several columns that may hold the pictures: {', '.join(names)}; choose by --image-column")
    raise NoPictureError(
        f"{url} has no column of pictures (its columns are {columns}); name one by --image-column or --url-column, "
        "or leave the file out with a glob"
    )


def _kind(column: Any) -> str:  # noqa: ANN401
    """What a column of that Arrow type may hold: "struct", "bytes", "url", or "" for no pictures."""
    if pa.types.is_dictionary(column):
        column = column.value_type
    if pa.types.is_struct(column):
        names = [column.field(index).name for index in range(column.num_fields)]
        return "struct" if "bytes" in names and _kind(column.field("bytes").type) == "bytes" else ""
    if pa.types.is_binary(column) or pa.types.is_large_binary(column) or pa.types.is_binary_view(column):
        return "bytes"
    is_text = pa.types.is_string(column) or pa.types.is_large_string(column) or pa.types.is_string_view(column)
    return "url" if is_text else ""


def _image_features(schema: Any) -> list[str]:  # noqa: ANN401
    """The image columns that the Hugging Face library has noted in a schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return [name for name, feature in features.items() if feature.get("_type") == "Image"]
    except (KeyError, ValueError, TypeError, AttributeError):
        return []


def _bytes_of(group: Any, name: str) -> int:  # noqa: ANN401
    chunks = [group.column(index) for index in range(group.num_columns)]
    return sum(c.total_uncompressed_size for c in chunks if c.path_in_schema.split(".")[0] == name.split(".")[0])
