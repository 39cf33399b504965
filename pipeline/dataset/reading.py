"""The bytes of one stored file, whole or a part of it, or one line that says why not."""

from __future__ import annotations

import functools
import os
import re
import stat
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from pipeline import retry
from pipeline.errors import ConfigError, MediaError, OutputError
from pipeline.folders import open_filesystem
from pipeline.inputs import NO_RANGES, open_input, why_missing

_PLACE = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://[^/]*")


def place_of(url: str) -> str:
    """``s3://bucket`` of a remote URL, "" of a local path and of ``file://``."""
    match = _PLACE.match(url)
    return match.group() if match and match.group(1) != "file" else ""


def is_web(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def remote(url: str) -> tuple[Any, str]:
    """The fsspec file system of a remote URL, one for all threads, and the path in it.

    Only the place is given to fsspec, which would take ``::`` in a name for a chain of URLs.
    """
    try:
        filesystem = _filesystem(place_of(url) + "/")
    except ConfigError as error:
        if isinstance(error.__cause__, ImportError):
            raise
        raise MediaError(one_line(f"{url}: {error.__cause__!s}; use a path, s3://, gs://, az:// or https://")) from error
    return filesystem, str(filesystem._strip_protocol(url))


@functools.lru_cache(64)
def _filesystem(place: str) -> Any:  # noqa: ANN401 - fsspec has no types
    return open_filesystem(place)[0]


def local_file(url: str) -> str:
    """The path behind a local URL as ``listed_url`` makes it."""
    if url.startswith("file://"):
        return os.fsdecode(urllib.parse.unquote_to_bytes(url.removeprefix("file://")))
    return url


def local_url(path: str) -> str:
    """A local path as text that every file format takes: itself, or percent-encoded ``file://`` where it is not UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "file://" + urllib.parse.quote(os.fsencode(path))
    return path


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Errors of storage libraries in the block as one line of ours.

    MediaError where the file is at fault, and for the web, where the next file comes from another server; OutputError where our
    storage keeps failing, so that the same request may succeed in an hour.
    """
    try:
        yield
    except (ConfigError, OutputError):
        raise
    except MediaError as error:
        if retry.is_transient(error) and not is_web(url):
            raise OutputError(f"{error}; run the same command again to resume") from error
        raise
    except FileNotFoundError as error:
        raise MediaError(one_line(f"{url}: {why_missing(error)}")) from error
    except PermissionError as error:
        raise MediaError(one_line(f"{url}: permission denied; check who may read it")) from error
    except Exception as error:
        reason = one_line(str(error))[:200] or type(error).__name__
        if retry.is_transient(error) and not is_web(url):
            raise OutputError(one_line(f"cannot read {url}: {reason}; run the same command again to resume")) from error
        raise MediaError(one_line(f"{url}: cannot be read: {reason}")) from error


class NoPictureError(MediaError):
    """An input that holds no picture, and need not."""


def one_line(text: str) -> str:
    return " ".join(text.split())


def read_bytes(url: str) -> bytes:
    """A whole file. Requests are repeated as ``retry`` says. Raises as ``explained``."""
    with explained(url):
        if not place_of(url):
            return _read_local(url, 0, None)
        filesystem, path = remote(url)
        # s3fs would first ask for the size, to read large objects in parts; a picture is small.
        options = {"max_concurrency": 1} if hasattr(filesystem, "call_s3") else {}
        return _bytes(lambda: filesystem.cat_file(path, **options))


def read_range(url: str, start: int, size: int) -> bytes:
    """``size`` bytes of a file from ``start``. Raises as ``explained``, and MediaError where the file ends before."""
    if not size:
        return b""
    with explained(url):
        if not place_of(url):
            data = _read_local(url, start, size)
        else:
            filesystem, path = remote(url)
            data = _bytes(lambda: filesystem.cat_file(path, start=start, end=start + size))
    if len(data) > size:
        raise MediaError(f"{url}: {NO_RANGES}")
    if len(data) != size:
        raise MediaError(one_line(f"{url}: ends in the middle: {len(data)} of {size} bytes are there from byte {start}"))
    return data


@contextmanager
def opened(url: str) -> Iterator[BinaryIO]:
    """A file to read and seek in. Errors in the block are raised as ``explained``."""
    with explained(url):
        if not place_of(url):
            with _open_local(url) as file:
                yield file
            return
        with open_input(url) as remote_file:
            yield cast(BinaryIO, remote_file)


def _bytes(request: Callable[[], Any]) -> bytes:
    return bytes(retry.call(request))


def _read_local(url: str, start: int, size: int | None) -> bytes:
    with _open_local(url) as file:
        file.seek(start)
        return file.read() if size is None else file.read(size)


def _open_local(url: str) -> BinaryIO:
    # Without O_NONBLOCK the open of a named pipe would wait for a writer for ever.
    descriptor = os.open(local_file(url), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise MediaError(one_line(f"{url}: is not a regular file"))
    return open(descriptor, "rb")
