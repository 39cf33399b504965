"""Files by URL: local paths and object stores behind one small interface that publishes whole files or nothing."""

from __future__ import annotations

import errno
import os
import re
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from pipeline import retry
from pipeline.errors import ConfigError, OutputError, UpscaleError
from pipeline.folders import Folder, LocalFolder, RemoteFolder

T = TypeVar("T")

_PROTOCOL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_NUMBER = re.compile(r"%(?=0\d+d)")  # of an image; as an escape it would be a control character
_READ_ONLY = "this kind of storage is only for reading; use a local path, s3://, gs:// or az://"


def local_path(url: str) -> str | None:
    """The absolute path that ``url`` names on this machine, or None where it is remote.

    A plain path is taken as it is, except for a leading ``~``; a file:// URL is percent-decoded, but for a ``%06d``.
    """
    if url.startswith("file://"):
        path = _NUMBER.sub("%25", url.removeprefix("file://").removeprefix("localhost"))
        return os.path.abspath(urllib.parse.unquote(path))
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

    A missing key raises FileNotFoundError; refused access, and a missing bucket that is written to or listed, ConfigError;
    storage that keeps failing or is full raises OutputError. Picklable: only the URL travels, and each process opens its own
    connection.
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

    def take(self, local: Path, key: str) -> None:
        """As ``upload``, of a file that nobody else has a use for: on the disk of a local store it gets another name."""
        self._do("write", key, lambda: self._folder.take(local, key))

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
            if verb not in ("write", "list"):
                raise
            raise ConfigError(f"cannot {verb} {self.url_of(key)}: there is no such bucket; create it first") from error
        except Exception as error:
            raise _explained(error, verb, self.url_of(key)) from error


def one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def _is_refusal(error: BaseException) -> bool:
    names = {type(cause).__name__ for cause in retry.causes(error)}
    refused = isinstance(error, PermissionError) or retry.http_status(error) in (401, 403)
    return refused or bool(names & {"NoCredentialsError", "ClientAuthenticationError", "DefaultCredentialsError"})


def _explained(error: Exception, verb: str, url: str) -> UpscaleError:
    """``error`` of a storage library as one line of ours."""
    if _is_refusal(error):
        return ConfigError(f"may not {verb} {url}: {one_line(error)}; check the permissions and credentials")
    if isinstance(error, NotImplementedError):
        return ConfigError(f"cannot {verb} {url}: {_READ_ONLY}")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"cannot {verb} {url}: no space left; free some and run the same command again to resume")
    if isinstance(error, OSError) and not retry.is_transient(error):
        return OutputError(f"cannot {verb} {url}: {one_line(error)}")
    return OutputError(f"cannot {verb} {url}: {one_line(error)}; run the same command again to resume")
