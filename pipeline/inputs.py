"""Sources by URL: which version of a file lies there, and reading any part of it."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO, cast

from pipeline import retry
from pipeline.errors import MediaError, UpscaleError
from pipeline.folders import open_filesystem
from pipeline.storage import local_path, one_line

_BLOCK_BYTES = 4 * 2**20
_NUM_BLOCKS = 16
NO_RANGES = "the server cannot serve parts of the file; download it first"
# The best first: S3 and https, Azure, Google, Hugging Face, then times.
_VERSION_FIELDS = (
    "ETag", "etag", "generation", "md5Hash", "blob_id", "Last-Modified", "LastModified", "last_modified", "created"
)  # fmt: skip


def why_missing(error: FileNotFoundError) -> str:
    """In words; fsspec's http says "not found" of servers that cannot be reached or answer with another error, too."""
    status = retry.http_status(error)
    if status is not None:
        return "no such file" if status in (404, 410) else f"cannot be read: the server answers with status {status}"
    for cause in retry.causes(error):
        if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError):
            return f"cannot be read: its server cannot be reached ({one_line(cause)})"
    return "no such file"


@dataclass(frozen=True, slots=True)
class SourceIdentity:
    """What tells one version of a source file from another. ``version`` is the etag, or for a local file its mtime in ns."""

    url: str
    size_bytes: int
    version: str


def identify(url: str) -> SourceIdentity:
    """Look at a source without reading it.

    Raises MediaError where it is missing, a directory, empty or unreadable, and ConfigError where its protocol is unknown or
    needs a package that is not installed.
    """
    path = local_path(url)
    try:
        identity = _identify_local(path) if path is not None else _identify_remote(url)
    except FileNotFoundError as error:
        raise MediaError(f"{url}: {why_missing(error)}") from error
    except UpscaleError:
        raise
    except PermissionError as error:
        raise MediaError(f"{url}: permission denied; check who may read it") from error
    except Exception as error:
        raise MediaError(f"{url}: cannot be read: {one_line(error)}") from error
    if identity.size_bytes == 0:
        raise MediaError(f"{url}: the file is empty")
    return identity


def _identify_local(path: str) -> SourceIdentity:
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise MediaError(f"{path}: is a directory, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise MediaError(f"{path}: is not a regular file; copy it to one first")
    with open(path, "rb"):
        return SourceIdentity(path, status.st_size, str(status.st_mtime_ns))


def _identify_remote(url: str) -> SourceIdentity:
    filesystem, path = open_filesystem(url)
    info = retry.call(lambda: filesystem.info(path))
    if info.get("type") == "directory":
        raise MediaError(f"{url}: is a folder, not a file")
    return _remote_identity(url, info)


def _remote_identity(url: str, info: dict[str, Any]) -> SourceIdentity:
    if info.get("size") is None:
        raise MediaError(f"{url}: the server does not tell its size; download the file first")
    return SourceIdentity(url, int(info["size"]), version_of(info))


def version_of(info: dict[str, Any]) -> str:
    """What an fsspec listing tells of a file that changes with its bytes; "" where it tells nothing."""
    value = next((info[field] for field in _VERSION_FIELDS if info.get(field)), "")
    # Of one file, fsspec's memory tells a number in a listing and a date when asked.
    return str(value.timestamp() if isinstance(value, datetime) else value).strip('"')


def identify_all(folder: str) -> list[SourceIdentity]:
    """The files that lie in a folder itself, in no order; none where there is no such folder. Errors as ``identify``."""
    path = local_path(folder)
    try:
        if path is not None:
            with os.scandir(path) as entries:
                files = [(entry.path, entry.stat()) for entry in entries if entry.is_file()]
            return [SourceIdentity(name, status.st_size, str(status.st_mtime_ns)) for name, status in files]
        filesystem, remote = open_filesystem(folder.rstrip("/"))
        found = retry.call(lambda: filesystem.ls(remote, detail=True))
        base = folder.rstrip("/")
        return [_remote_identity(f"{base}/{info['name'].rpartition('/')[2]}", info) for info in found if info["type"] == "file"]
    except FileNotFoundError:
        return []
    except UpscaleError:
        raise
    except Exception as error:
        raise MediaError(f"{folder}: cannot be listed: {one_line(error)}") from error


@contextmanager
def open_input(url: str) -> Iterator[str | BinaryIO]:
    """What PyAV opens: the path of a local file, or a seekable file object over a remote one.

    Remote bytes are kept in a few large blocks, so that an index at the end of the file and interleaved streams cost no
    repeated requests. Raises MediaError where the file is missing or its server cannot serve ranges.
    """
    path = local_path(url)
    if path is not None:
        yield path
        return
    filesystem, remote = open_filesystem(url)
    try:
        file = retry.call(
            lambda: filesystem.open(
                remote, "rb", block_size=_BLOCK_BYTES, cache_type="blockcache", cache_options={"maxblocks": _NUM_BLOCKS}
            )
        )
    except FileNotFoundError as error:
        raise MediaError(f"{url}: {why_missing(error)}") from error
    except Exception as error:
        raise MediaError(f"{url}: cannot be read: {one_line(error)}") from error
    with contextlib.closing(file):
        if not file.seekable():
            raise MediaError(f"{url}: {NO_RANGES}")
        yield cast(BinaryIO, RemoteFile(file, url))


class RemoteFile(io.RawIOBase):
    """A readable fsspec file whose reads are repeated as ``retry`` says; PyAV would take an error for the end of the file.

    ``failure`` keeps the error of a read that failed for good.
    """

    def __init__(self, file: BinaryIO, url: str) -> None:
        self._file = file
        self._url = url
        self.failure: UpscaleError | None = None

    @property
    def name(self) -> str:
        return self._url.rpartition("/")[2]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def read(self, size: int = -1) -> bytes:
        start = self._file.tell()

        def attempt() -> bytes:
            self._file.seek(start)
            return bytes(self._file.read(size))

        try:
            return retry.call(attempt)
        except Exception as error:
            reason = NO_RANGES if "range requests" in str(error) else f"cannot be read: {one_line(error)}"
            self.failure = MediaError(f"{self._url}: {reason}")
            raise self.failure from error
