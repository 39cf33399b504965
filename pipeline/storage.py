"""Files by URL: local paths and object stores behind one small interface that publishes whole files or nothing."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import stat
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from pipeline import retry
from pipeline.errors import ConfigError, MediaError, OutputError, UpscaleError
from pipeline.folders import Folder, LocalFolder, RemoteFolder, open_filesystem, publishing

T = TypeVar("T")

_PROTOCOL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_BLOCK_BYTES = 4 * 2**20
_NUM_BLOCKS = 16
_NO_RANGES = "the server cannot serve parts of the file; download it first"
_READ_ONLY = "this kind of storage is only for reading; use a local path, s3://, gs:// or az://"
# The best first: S3 and https, Azure, Google, Hugging Face, then times.
_VERSION_FIELDS = (
    "ETag", "etag", "generation", "md5Hash", "blob_id", "Last-Modified", "LastModified", "last_modified", "created"
)  # fmt: skip


def local_path(url: str) -> str | None:
    """The absolute path that ``url`` names on this machine, or None where it is remote.

    A plain path is taken as it is, except for a leading ``~``; a file:// URL is percent-decoded.
    """
    if url.startswith("file://"):
        path = urllib.parse.unquote(url.removeprefix("file://").removeprefix("localhost"))
        return os.path.abspath(path)
    if _PROTOCOL.match(url):
        return None
    return os.path.abspath(os.path.expanduser(url))


def normal_url(url: str) -> str:
    """``url`` as every process understands it: an absolute local path, or the remote URL without a trailing slash."""
    path = local_path(url)
    return path if path is not None else url.rstrip("/")


def split_url(url: str) -> tuple[Store, str]:
    """The folder that holds ``url``, and the file's name in it. Raises ConfigError where ``url`` names no file."""
    path = local_path(url)
    if path is not None:
        parent, name = os.path.split(path)
        named = bool(name) and not url.endswith(("/", os.sep)) and not os.path.isdir(path)
    else:
        parent, _, name = url.rpartition("/")
        named = bool(name) and "://" in parent and not parent.endswith("/")
    if not named:
        raise ConfigError(f"{url} names a folder, not a file; add a file name")
    return Store(parent), name


class Store:
    """A folder, local or remote. Keys are relative paths with ``/``.

    A missing key raises FileNotFoundError; refused access raises ConfigError; storage that keeps failing or is full raises
    OutputError. Picklable: only the URL travels, and each process opens its own connection.
    """

    def __init__(self, url: str) -> None:
        self.url = normal_url(url)
        self._opened: Folder | None = None

    def __getstate__(self) -> str:
        return self.url

    def __setstate__(self, url: str) -> None:
        self.__init__(url)  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    @property
    def _folder(self) -> Folder:
        if self._opened is None:
            self._opened = LocalFolder(self.url) if local_path(self.url) is not None else RemoteFolder(self.url)
        return self._opened

    def url_of(self, key: str) -> str:
        return f"{self.url}/{key}"

    def exists(self, key: str) -> bool:
        try:
            self.size_bytes(key)
        except FileNotFoundError:
            return False
        return True

    def size_bytes(self, key: str) -> int:
        return self._do("read", key, lambda: self._folder.size_bytes(key))

    def read(self, key: str) -> bytes:
        return self._do("read", key, lambda: self._folder.read(key))

    def write(self, key: str, data: bytes) -> None:
        """Store ``data`` under ``key``, replacing what is there; a reader sees the old content or the new."""
        self._do("write", key, lambda: self._folder.write(key, data))

    def upload(self, local: Path, key: str) -> None:
        """As ``write``, from a file of any size."""
        self._do("write", key, lambda: self._folder.upload(local, key))

    def download(self, key: str, local: Path) -> None:
        """Copy ``key`` to the file ``local``, which appears only when complete."""
        self._do("read", key, lambda: self._folder.download(key, local))

    def create_once(self, key: str, data: bytes) -> bool:
        """Store ``data`` under ``key`` unless the key exists; of any number of racers at most one gets True.

        False may also mean that our own request went through and its answer was lost: who must know reads the key.
        """
        return self._do("write", key, lambda: self._folder.create_once(key, data))

    def list(self, prefix: str = "") -> Iterator[str]:
        """The keys under the folder ``prefix``, as they are now."""
        keys = self._do("list", prefix, lambda: self._folder.list(prefix))
        while (key := self._do("list", prefix, lambda: next(keys, None))) is not None:
            yield key

    def delete(self, key: str) -> None:
        """Delete ``key`` if it exists."""
        self._do("delete", key, lambda: self._folder.delete(key))

    def delete_all(self, prefix: str) -> None:
        """Delete everything under the folder ``prefix``; with "" everything there is."""
        self._do("delete", prefix, lambda: self._folder.delete_all(prefix))

    def _do(self, verb: str, key: str, operation: Callable[[], T]) -> T:
        if verb in ("write", "delete") and self.url.startswith(("http://", "https://")):  # fsspec would try a POST
            raise ConfigError(f"cannot {verb} {self.url_of(key)}: {_READ_ONLY}")
        try:
            return operation()
        except UpscaleError:
            raise
        except FileNotFoundError as error:
            if verb != "write":
                raise
            raise ConfigError(f"cannot write {self.url_of(key)}: there is no such bucket; create it first") from error
        except Exception as error:
            raise _explained(error, verb, self.url_of(key)) from error


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def _is_refusal(error: BaseException) -> bool:
    names = {type(cause).__name__ for cause in retry.causes(error)}
    refused = isinstance(error, PermissionError) or retry.http_status(error) in (401, 403)
    return refused or bool(names & {"NoCredentialsError", "ClientAuthenticationError", "DefaultCredentialsError"})


def _explained(error: Exception, verb: str, url: str) -> UpscaleError:
    """``error`` of a storage library as one line of ours."""
    if _is_refusal(error):
        return ConfigError(f"may not {verb} {url}: {_one_line(error)}; check the permissions and credentials")
    if isinstance(error, NotImplementedError):
        return ConfigError(f"cannot {verb} {url}: {_READ_ONLY}")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"cannot {verb} {url}: no space left; free some and run the same command again to resume")
    if isinstance(error, OSError) and not retry.is_transient(error):
        return OutputError(f"cannot {verb} {url}: {_one_line(error)}")
    return OutputError(f"cannot {verb} {url}: {_one_line(error)}; run the same command again to resume")


def why_missing(error: FileNotFoundError) -> str:
    """In words; fsspec's http says "not found" of servers that cannot be reached or answer with another error, too."""
    status = retry.http_status(error)
    if status is not None:
        return "no such file" if status in (404, 410) else f"cannot be read: the server answers with status {status}"
    for cause in retry.causes(error):
        if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError):
            return f"cannot be read: its server cannot be reached ({_one_line(cause)})"
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
        raise MediaError(f"{url}: cannot be read: {_one_line(error)}") from error
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
        raise MediaError(f"{folder}: cannot be listed: {_one_line(error)}") from error


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
        raise MediaError(f"{url}: cannot be read: {_one_line(error)}") from error
    with contextlib.closing(file):
        if not file.seekable():
            raise MediaError(f"{url}: {_NO_RANGES}")
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
            reason = _NO_RANGES if "range requests" in str(error) else f"cannot be read: {_one_line(error)}"
            self.failure = MediaError(f"{self._url}: {reason}")
            raise self.failure from error


def fetch(url: str, local: Path) -> None:
    """Copy a source to the file ``local``, which appears only when complete. Raises MediaError where it cannot be read."""
    path = local_path(url)
    try:
        if path is not None:
            LocalFolder("/").download(path.lstrip("/"), local)
            return
        filesystem, remote = open_filesystem(url)
        with publishing(local) as part:
            retry.call(lambda: filesystem.get_file(remote, os.fspath(part)))
    except FileNotFoundError as error:
        raise MediaError(f"{url}: {why_missing(error)}") from error
    except UpscaleError:
        raise
    except Exception as error:
        raise MediaError(f"{url}: cannot be copied: {_one_line(error)}") from error
