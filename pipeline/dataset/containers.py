"""Files that hold many pictures: Parquet by the conventions of Hugging Face, and tars by those of WebDataset."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import BinaryIO, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset.index import Row
from pipeline.dataset.names import file_path, sample_name
from pipeline.errors import OutputError

ROW_GROUP_BYTES = 32 << 20  # viewers read a whole one to show one picture; a larger picture has one of its own
VALUE_BYTES = (1 << 31) - 1  # of one Parquet value

_SIZES = ("width", "height", "source_width", "source_height")
_TEXTS = ("key", "source_sha256")
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_FEATURES = {
    "image": {"_type": "Image"},
    **{name: {"dtype": "string", "_type": "Value"} for name in _TEXTS},
    **{name: {"dtype": "int32", "_type": "Value"} for name in _SIZES},
}
PICTURES = pa.schema(
    [("image", _IMAGE), *((name, pa.string()) for name in _TEXTS), *((name, pa.int32()) for name in _SIZES)],
    {"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)


class Container(Protocol):
    """A file being written. The same pictures in the same order give the same bytes."""

    def add(self, row: Row, data: bytes | Path) -> None: ...
    def close(self) -> None: ...


class ParquetContainer:
    """Pictures as rows. Memory holds one row group of them."""

    def __init__(self, path: Path, row_group_bytes: int = ROW_GROUP_BYTES) -> None:
        self._limit = row_group_bytes
        self._rows: list[tuple[Row, bytes]] = []
        self._num_bytes = 0
        self._writer = pq.ParquetWriter(
            path,
            PICTURES,
            compression="none",  # pictures are compressed already
            use_dictionary=False,
            write_statistics=[*_TEXTS, *_SIZES],
            write_page_index=True,
            write_batch_size=1,  # the size of a page is looked at after so many values
        )

    def add(self, row: Row, data: bytes | Path) -> None:
        num_bytes = len(data) if isinstance(data, bytes) else data.stat().st_size
        if num_bytes > VALUE_BYTES:
            raise OutputError(f"{row.key}: the result has {num_bytes} bytes, more than a Parquet value can")
        data = data if isinstance(data, bytes) else data.read_bytes()
        if self._rows and self._num_bytes + len(data) > self._limit:
            self._flush()
        self._rows.append((row, data))
        self._num_bytes += len(data)

    def close(self) -> None:
        if self._rows:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        pictures = [
            {"image": {"bytes": data, "path": file_path(row.key, f".{row.output_format}").rpartition("/")[2]}, **_facts(row)}
            for row, data in self._rows
        ]
        self._rows, self._num_bytes = [], 0
        self._writer.write_table(pa.Table.from_pylist(pictures, PICTURES))


class TarContainer:
    """Pictures as pairs ``<name>.png`` and ``<name>.json``."""

    def __init__(self, path: Path) -> None:
        self._tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115  (close closes it)

    def add(self, row: Row, data: bytes | Path) -> None:
        name = sample_name(row.key)
        if isinstance(data, bytes):
            self._write(f"{name}.{row.output_format}", io.BytesIO(data), len(data))
        else:
            with data.open("rb") as file:
                self._write(f"{name}.{row.output_format}", file, data.stat().st_size)
        facts = json.dumps(_facts(row), sort_keys=True, ensure_ascii=False).encode()
        self._write(f"{name}.json", io.BytesIO(facts), len(facts))

    def close(self) -> None:
        self._tar.close()

    def _write(self, name: str, file: BinaryIO, num_bytes: int) -> None:
        member = tarfile.TarInfo(name)  # of time 0, owner 0, and mode 0644
        member.size = num_bytes
        self._tar.addfile(member, file)


def _facts(row: Row) -> dict[str, str | int | None]:
    return {
        "key": row.key,
        "source_sha256": row.source_sha256,
        "width": row.output_width,
        "height": row.output_height,
        "source_width": row.width,
        "source_height": row.height,
    }


class PackedPictures(Protocol):
    """A file that a container wrote, open for reading."""

    def read(self, row: Row) -> bytes:
        """The picture of a row. Raises KeyError where it is not there."""
        ...


class ParquetPictures:
    """Memory holds one row group."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = pq.ParquetFile(pa.PythonFile(file, "r"), pre_buffer=False)
        self._places: dict[str, tuple[int, int]] = {}
        for group in range(self._file.num_row_groups):
            keys = self._file.read_row_group(group, columns=["key"], use_threads=False)["key"].to_pylist()
            self._places |= {key: (group, index) for index, key in enumerate(keys)}
        self._number, self._images = -1, None

    def read(self, row: Row) -> bytes:
        group, index = self._places[row.key]
        if group != self._number:
            self._images = self._file.read_row_group(group, columns=["image"], use_threads=False)["image"]
            self._number = group
        assert self._images is not None
        data: bytes = self._images[index].as_py()["bytes"]
        return data


class TarPictures:
    def __init__(self, file: BinaryIO) -> None:
        self._tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115  (the file is the caller's)

    def read(self, row: Row) -> bytes:
        file = self._tar.extractfile(f"{sample_name(row.key)}.{row.output_format}")
        if file is None:
            raise KeyError(row.key)
        return file.read()
