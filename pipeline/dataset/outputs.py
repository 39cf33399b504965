"""Where results go: a tree of files, or files of many pictures; each appears whole, and a second attempt writes the same."""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol, Self

from pipeline.dataset.containers import (
    Container,
    PackedPictures,
    ParquetContainer,
    ParquetPictures,
    TarContainer,
    TarPictures,
)
from pipeline.dataset.index import Row
from pipeline.dataset.names import DATA, file_path
from pipeline.inputs import open_input
from pipeline.storage import Store

FILE_BYTES = 480_000_000  # of a file of pictures; a larger picture has one of its own
UPLOAD_THREADS = 16
UPLOAD_BYTES = 128 << 20  # on their way at once

_CONTAINERS: dict[str, Callable[[Path], Container]] = {"parquet": ParquetContainer, "webdataset": TarContainer}
_ENDINGS = {"parquet": ".parquet", "webdataset": ".tar"}


class Output(Protocol):
    """The results of one unit. Leaving the block without ``close`` abandons what was not stored yet."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...

    def add(self, row: Row, data: bytes | Path) -> str:
        """Take the encoded picture of ``row``, or its file, which stays until ``close``; the path, in the destination, of the
        file that will hold it.

        Uploads go on meanwhile; the error of an earlier one is raised here.
        """
        ...

    def close(self) -> list[dict[str, Any]]:
        """Wait until all is stored; name, size, SHA-256 and length of the files of pictures, none for a tree of files."""
        ...


def open_output(kind: str, out: Store, unit_id: str, scratch: Path) -> Output:
    """``kind`` is files, parquet or webdataset; a file of pictures grows in ``scratch`` until it is stored."""
    if kind == "files":
        return FilesOutput(out)
    return PackedOutput(out, f"{DATA}/{unit_id}", _ENDINGS[kind], _CONTAINERS[kind], scratch)


class FilesOutput:
    """One file for each picture, named as its source."""

    def __init__(self, out: Store) -> None:
        self._out = out
        self._uploads = _Uploads(UPLOAD_THREADS, UPLOAD_BYTES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._uploads.abandon()

    def add(self, row: Row, data: bytes | Path) -> str:
        path = file_path(row.key, f".{row.output_format}")
        if isinstance(data, Path):
            self._uploads.start(0, lambda: self._out.upload(data, path))
        else:
            self._uploads.start(len(data), lambda: self._out.write(path, data))
        return path

    def close(self) -> list[dict[str, Any]]:
        self._uploads.finish()
        return []


class PackedOutput:
    """Files of many pictures: ``<name>-000.tar`` and so on, a new one where the last would grow over ``file_bytes``."""

    def __init__(
        self,
        out: Store,
        name: str,
        ending: str,
        open_container: Callable[[Path], Container],
        scratch: Path,
        file_bytes: int = FILE_BYTES,
    ) -> None:
        self._out, self._name, self._ending = out, name, ending
        self._open_container, self._scratch, self._limit = open_container, scratch, file_bytes
        self._uploads = _Uploads(1, 0)  # the next file grows while one is on its way
        self._files: list[dict[str, Any]] = []
        self._container: Container | None = None
        self._num_rows = self._num_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._container is not None:
            self._container.close()
        self._uploads.abandon()

    def add(self, row: Row, data: bytes | Path) -> str:
        num_bytes = len(data) if isinstance(data, bytes) else data.stat().st_size
        size_bytes = num_bytes + 4096 + 8 * len(row.key.encode("utf-8", "surrogateescape"))  # no header or JSON is larger
        if self._container is not None and self._num_bytes + size_bytes > self._limit:
            self._store()
        if self._container is None:
            self._container = self._open_container(self._local)
        self._container.add(row, data)
        self._num_rows += 1
        self._num_bytes += size_bytes
        return self._key

    def close(self) -> list[dict[str, Any]]:
        if self._container is not None:
            self._store()
        self._uploads.finish()
        return self._files

    @property
    def _key(self) -> str:
        return f"{self._name}-{len(self._files):03d}{self._ending}"

    @property
    def _local(self) -> Path:
        return self._scratch / self._key.rpartition("/")[2]

    def _store(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            container.close()
        key, local = self._key, self._local
        with local.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        self._files.append(
            {"key": key, "size_bytes": local.stat().st_size, "sha256": sha256, "num_rows": self._num_rows},
        )
        self._num_rows = self._num_bytes = 0
        self._uploads.start(1, lambda: self._upload(local, key))

    def _upload(self, local: Path, key: str) -> None:
        self._out.upload(local, key)
        local.unlink()


class _Uploads:
    """Writes in threads, bounded in number and in bytes; what fails is raised by a later call."""

    def __init__(self, threads: int, budget_bytes: int) -> None:
        self._pool = ThreadPoolExecutor(threads)
        self._depth, self._budget = 2 * threads, budget_bytes
        self._running: deque[tuple[Future[None], int]] = deque()
        self._num_bytes = 0

    def start(self, size_bytes: int, write: Callable[[], None]) -> None:
        while self._running and (len(self._running) >= self._depth or self._num_bytes + size_bytes > self._budget):
            self._wait()
        self._running.append((self._pool.submit(write), size_bytes))
        self._num_bytes += size_bytes

    def finish(self) -> None:
        while self._running:
            self._wait()
        self._pool.shutdown()

    def abandon(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _wait(self) -> None:
        future, size_bytes = self._running.popleft()
        future.result()
        self._num_bytes -= size_bytes


def is_packed(output: str) -> bool:
    """Whether the file where a picture lies holds others too."""
    return output.startswith(f"{DATA}/") and output.endswith(tuple(_ENDINGS.values()))


@contextmanager
def open_packed(out: Store, output: str) -> Iterator[PackedPictures]:
    """A file of pictures. Raises FileNotFoundError or MediaError where it is gone."""
    with ExitStack() as stack:
        opened = stack.enter_context(open_input(out.url_of(output)))
        file = stack.enter_context(open(opened, "rb")) if isinstance(opened, str) else opened
        yield ParquetPictures(file) if output.endswith(".parquet") else TarPictures(file)


def read_output(out: Store, row: Row) -> bytes:
    """The stored picture of a row. Raises FileNotFoundError, KeyError or MediaError where it is gone."""
    if not is_packed(row.output):
        return out.read(row.output)
    with open_packed(out, row.output) as pictures:
        return pictures.read(row)


def remove_strays(out: Store, kept: Collection[str]) -> list[str]:
    """Delete files of pictures that no committed unit names: of attempts that died, and of an archive that has changed since.

    Returns their names in order. Other files in the folder are left alone.
    """
    ours = re.compile(rf"{DATA}/[0-9a-f]{{16}}-\d{{3,}}\.(parquet|tar)")
    strays = sorted(key for key in out.list(DATA) if ours.fullmatch(key) and key not in kept)
    for key in strays:
        out.delete(key)
    return strays
