"""The two kinds of folder behind a Store: a local directory and an fsspec one."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import shutil
import stat
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import fsspec

from pipeline import retry
from pipeline.errors import ConfigError

_EXTRAS = {
    "s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "http": "http", "https": "http", "hf": "hf",
}  # fmt: skip
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_memory_lock = threading.Lock()


class Folder(Protocol):
    """What a Store asks of a place. Missing keys raise FileNotFoundError; other errors are as the library raises them."""

    def size_bytes(self, key: str) -> int: ...
    def read(self, key: str) -> bytes: ...
    def write(self, key: str, data: bytes) -> None: ...
    def upload(self, local: Path, key: str) -> None: ...
    def take(self, local: Path, key: str) -> None: ...
    def download(self, key: str, local: Path) -> None: ...
    def create_once(self, key: str, data: bytes) -> bool: ...
    def list(self, prefix: str) -> Iterator[str]: ...
    def delete(self, key: str) -> None: ...
    def delete_all(self, prefix: str) -> None: ...


@contextmanager
def publishing(target: Path) -> Iterator[Path]:
    """A temporary path beside ``target`` that becomes ``target`` if the block ends well, and disappears if it does not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.parent / f".{uuid.uuid4().hex}.part"  # not derived from the name, which may already be 255 bytes long
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


class LocalFolder:
    """A directory of this machine. It is created by the first write."""

    def __init__(self, root: str) -> None:
        self._root = Path(root)

    def size_bytes(self, key: str) -> int:
        status = (self._root / key).stat()
        if stat.S_ISDIR(status.st_mode):
            raise FileNotFoundError(key)
        return status.st_size

    def read(self, key: str) -> bytes:
        return (self._root / key).read_bytes()

    def write(self, key: str, data: bytes) -> None:
        with publishing(self._root / key) as part:
            part.write_bytes(data)

    def upload(self, local: Path, key: str) -> None:
        with publishing(self._root / key) as part:
            # No second copy of a film; callers upload finished files and let go of them. One that is there already, as the
            # result of another picture, is another file here: who edits one means one. Links are counted afterwards, as
            # another thread may make one at the same time.
            with contextlib.suppress(OSError):
                os.link(local, part)
                if local.stat().st_nlink == 2:
                    return
                part.unlink()
            shutil.copyfile(local, part)

    def take(self, local: Path, key: str) -> None:
        target = self._root / key
        target.parent.mkdir(parents=True, exist_ok=True)
        with local.open("rb") as file:
            os.fsync(file.fileno())
        try:
            os.replace(local, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self.upload(local, key)

    def download(self, key: str, local: Path) -> None:
        with publishing(local) as part:
            shutil.copyfile(self._root / key, part)

    def create_once(self, key: str, data: bytes) -> bool:
        # Neither rename (it replaces) nor fsspec's mode="create" (it checks first) is exclusive; a hard link is.
        target = self._root / key
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.parent / f".{uuid.uuid4().hex}.part"
        try:
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.link(part, target)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            return _create_exclusively(target, data)
        finally:
            part.unlink(missing_ok=True)
        return True

    def list(self, prefix: str) -> Iterator[str]:
        for directory, subdirectories, names in os.walk(self._root / prefix, onerror=_raise_unless_missing):
            subdirectories.sort()
            folder = Path(directory).relative_to(self._root)
            for name in sorted(names):
                if not (name.startswith(".") and name.endswith(".part")):
                    yield (folder / name).as_posix()

    def delete(self, key: str) -> None:
        (self._root / key).unlink(missing_ok=True)

    def delete_all(self, prefix: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._root / prefix)


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _create_exclusively(target: Path, data: bytes) -> bool:
    """For file systems without hard links: exclusive, but a reader may see the file before its content."""
    try:
        with target.open("xb") as file:
            file.write(data)
    except FileExistsError:
        return False
    return True


class RemoteFolder:
    """A prefix of an fsspec file system. Requests are repeated as ``retry`` says.

    The traps: listings are cached for ever unless told otherwise; ``open(key, "wb")`` publishes what was written when an
    exception passes through it; ``rm``, ``get`` and ``put`` expand ``*``, ``?`` and ``[``, their ``_file`` forms do not.
    """

    def __init__(self, url: str) -> None:
        self._fs, root = open_filesystem(url)
        self._root = root.rstrip("/")
        self._is_memory = url.startswith("memory://")

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}" if key else self._root

    def size_bytes(self, key: str) -> int:
        info = retry.call(lambda: self._fs.info(self._path(key)))
        if info["type"] == "directory":
            raise FileNotFoundError(key)
        return int(info["size"])

    def read(self, key: str) -> bytes:
        return bytes(retry.call(lambda: self._fs.cat_file(self._path(key))))

    def write(self, key: str, data: bytes) -> None:
        retry.call(lambda: self._fs.pipe_file(self._path(key), data))

    def upload(self, local: Path, key: str) -> None:
        retry.call(lambda: self._fs.put_file(os.fspath(local), self._path(key)))

    take = upload

    def download(self, key: str, local: Path) -> None:
        with publishing(local) as part:
            retry.call(lambda: self._fs.get_file(self._path(key), os.fspath(part)))

    def create_once(self, key: str, data: bytes) -> bool:
        try:
            if self._is_memory:
                with _memory_lock:
                    self._fs.pipe_file(self._path(key), data, mode="create")
            else:
                retry.call(lambda: self._fs.pipe_file(self._path(key), data, mode="create"))
        except FileExistsError:
            return False
        except Exception as error:
            if retry.http_status(error) == 412:  # "If-None-Match" without the detail by which s3fs recognises it
                return False
            raise
        return True

    def list(self, prefix: str) -> Iterator[str]:
        start = len(self._root) + 1
        for path in retry.call(lambda: self._fs.find(self._path(prefix.rstrip("/")))):
            if not path.endswith("/"):
                yield path[start:]

    def delete(self, key: str) -> None:
        try:
            retry.call(lambda: self._fs.rm_file(self._path(key)))
        except FileNotFoundError:
            return

    def delete_all(self, prefix: str) -> None:
        with ThreadPoolExecutor(16) as pool:
            for _ in pool.map(self.delete, self.list(prefix)):
                pass


def open_filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of ``url``, without listing cache, and the path of ``url`` in it.

    Raises ConfigError for an unknown protocol, or one whose package is not installed.
    """
    protocol = url.partition("://")[0]
    try:
        options = _http_options() if protocol in ("http", "https") else {}
        filesystem, path = fsspec.core.url_to_fs(url, use_listings_cache=False, **options)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        advice = f"pip install 'swinir-pipeline[{extra}]'" if extra else str(error)
        raise ConfigError(f"cannot open {url}: {protocol}:// needs a package that is not installed; {advice}") from error
    except ValueError as error:
        raise ConfigError(f"cannot open {url}: {error}; use a local path, s3://, gs://, az:// or https://") from error
    return filesystem, str(path)


def _http_options() -> dict[str, Any]:
    """Time limits on silence. aiohttp's own limit is five minutes for a whole file, however large."""
    timeout = importlib.import_module("aiohttp").ClientTimeout(total=None, sock_connect=30, sock_read=60)
    return {"client_kwargs": {"timeout": timeout}}
