"""The files under a folder of this machine or of an object store, as a stream in the order of their keys."""

from __future__ import annotations

import heapq
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pipeline import retry
from pipeline.dataset.patterns import Patterns
from pipeline.dataset.reading import explained, local_url, one_line, place_of, remote
from pipeline.inputs import version_of
from pipeline.storage import local_path

OUR_NAMES = frozenset({"_swinir", "_index.parquet", "__card__"})  # what this program leaves in a folder of results


@dataclass(frozen=True, slots=True)
class File:
    """A stored file, or a folder or file that cannot be looked at, for the reason ``problem``.

    ``key`` is the path below the source's root, of an unreadable folder with ``/`` at its end. ``version`` changes with the
    bytes as far as storage tells: an etag, or mtime in ns and size.
    """

    key: str
    url: str
    size_bytes: int
    version: str
    problem: str = ""


Order = Callable[[str], str]
"""What files are sorted by: containers by their key and ``/``, as the folders of their members; others by their key."""


def is_hidden(name: str) -> bool:
    """Whether a name within a folder is never listed: it begins with a dot, or is ours."""
    return name.startswith(".") or name in OUR_NAMES


def readable(text: str) -> str:
    """``text`` with bytes that are not UTF-8 as U+FFFD and two hex digits, which sort and store like any other."""
    if text.isascii():
        return text
    return "".join(f"\ufffd{ord(c) - 0xDC00:02x}" if "\udc80" <= c <= "\udcff" else c for c in text)


def walk(root: str, patterns: Patterns | None, exclude: str | None, order: Order) -> Iterator[File]:
    """The files below ``root``, which ends with ``/``."""
    real = _real(exclude)
    if real and not place_of(root) and _is_within(os.path.realpath(root), real):
        real = ""  # the destination holds the source, whose links among themselves lead into it
    chosen = _Choice(patterns, _below(root, exclude), real)
    if not place_of(root):
        return _walk_local(root, chosen, order)
    filesystem, path = remote(root)
    if hasattr(filesystem, "call_s3"):
        return _in_order(_list_s3(filesystem, root, chosen), order)
    return _walk_remote(filesystem, path, root, chosen, order)


def _below(root: str, folder: str | None) -> str:
    """The key under ``root`` of a folder, "" where it does not lie there."""
    if folder is None:
        return ""
    path = local_path(folder)
    if path is not None and not place_of(root):
        root, folder = os.path.join(os.path.realpath(root), ""), os.path.realpath(path)
    folder = folder.rstrip("/")
    return readable(folder[len(root) :]) if folder.startswith(root) else ""


def _is_within(path: str, folder: str) -> bool:
    return os.path.commonpath([folder, path]) == folder


def _real(folder: str | None) -> str:
    path = local_path(folder) if folder is not None else None
    return os.path.realpath(path) if path is not None else ""


@dataclass(frozen=True, slots=True)
class _Choice:
    patterns: Patterns | None
    excluded: str
    real_excluded: str  # the same as a local path, "" where it is none

    def file(self, key: str) -> bool:
        return self.patterns is None or self.patterns.match(key)

    def leaves_out(self, key: str) -> bool:
        """Whether the key is in the excluded folder."""
        return bool(self.excluded) and key.startswith(f"{self.excluded}/")

    def leads_there(self, path: str) -> bool:
        """Whether a local path is a link into the excluded folder."""
        return bool(self.real_excluded) and os.path.islink(path) and _is_within(os.path.realpath(path), self.real_excluded)

    def folder(self, key: str) -> bool:
        return key != self.excluded and (self.patterns is None or self.patterns.may_hold(key))


def local(key: str, url: str, status: os.stat_result) -> File:
    """A file of this machine; a change shows in its time or size."""
    return File(key, url, status.st_size, f"{status.st_mtime_ns}-{status.st_size}")


def _walk_local(root: str, chosen: _Choice, order: Order) -> Iterator[File]:
    with explained(root):
        stack = [
            (root, "", _inode(os.stat(root)), iter(_names(root, order)))
        ]  # not recursive: folders nest deeper than Python calls
    while stack:
        folder, prefix, _, names = stack[-1]
        name = next(names, "").rstrip("/")
        if not name:
            stack.pop()
            continue
        path, key = folder + name, prefix + readable(name)
        if chosen.leads_there(path):
            continue
        try:
            status = os.stat(path)
            if not stat.S_ISDIR(status.st_mode):
                if chosen.file(key):
                    yield local(key, local_url(path), status)
            elif chosen.folder(key) and _inode(status) not in [inode for _, _, inode, _ in stack]:
                stack.append((f"{path}/", f"{key}/", _inode(status), iter(_names(path, order))))
        except OSError as error:
            is_folder = os.path.isdir(path)
            if chosen.folder(key) if is_folder else chosen.file(key):
                reason = one_line(f"{path}: {'cannot be listed' if is_folder else 'cannot be read'}: {error.strerror}")
                yield File(key + "/" * is_folder, local_url(path), 0, "", readable(reason))


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _names(folder: str, order: Order) -> list[str]:
    """The names in a local folder in order, those of folders and containers with ``/`` at the end."""

    def ordered(entry: os.DirEntry[str]) -> str:
        try:
            return f"{entry.name}/" if entry.is_dir() else order(entry.name)
        except OSError:  # a link to itself
            return order(entry.name)

    with os.scandir(folder) as entries:
        return sorted((ordered(entry) for entry in entries if not is_hidden(entry.name)), key=readable)


def _walk_remote(filesystem: Any, path: str, url: str, chosen: _Choice, order: Order) -> Iterator[File]:  # noqa: ANN401
    def entries(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
        with explained(url):
            infos = retry.call(lambda: filesystem.ls(path, detail=True))
        found = {}
        for info in infos:
            name = info["name"].rstrip("/").rpartition("/")[2]
            # Stores without folders have files of no bytes in their place, listed in themselves.
            if name and not is_hidden(name) and info["name"].strip("/") != path.strip("/"):
                found[f"{name}/" if info["type"] == "directory" else order(name)] = info
        return iter(sorted(found.items()))

    stack = [("", entries(path))]
    while stack:
        prefix, rest = stack[-1]
        ordered, info = next(rest, ("", {}))
        if not ordered:
            stack.pop()
            continue
        key = prefix + ordered.rstrip("/")
        if info["type"] == "directory":
            if chosen.folder(key):
                stack.append((f"{key}/", entries(info["name"])))
        elif chosen.file(key):
            yield File(key, url + key, info["size"] or 0, version_of(info))


def _list_s3(filesystem: Any, root: str, chosen: _Choice) -> Iterator[File]:  # noqa: ANN401
    """In the order of whole keys, which is that of S3; one request for a thousand of them, however deep."""
    bucket, prefix, _ = filesystem.split_path(root)  # a bucket may also be an access point, with slashes in its name
    query = {
        "Bucket": bucket,
        "Prefix": prefix + (chosen.patterns.literal_start if chosen.patterns else ""),
        "Delimiter": "/" if chosen.patterns and chosen.patterns.only_names else "",
    }
    for page in _s3_pages(filesystem, query, root):
        for entry in page:
            key = entry["Key"][len(prefix) :]
            parts = key.split("/")
            if parts[-1] and not any(map(is_hidden, parts)) and not chosen.leaves_out(key) and chosen.file(key):
                problem = f"{root}{key}: an empty name in its path; rename it" if "" in parts else ""
                yield File(key, root + key, entry["Size"], version_of(entry), one_line(problem))


def _s3_pages(filesystem: Any, query: dict[str, str], root: str) -> Iterator[list[dict[str, Any]]]:  # noqa: ANN401
    token: dict[str, str] = {}

    def request() -> dict[str, Any]:
        page: dict[str, Any] = filesystem.call_s3("list_objects_v2", **query, **token, **filesystem.req_kw)
        return page

    while True:
        with explained(root):
            page = retry.call(request)
        yield page.get("Contents", [])
        if not page.get("IsTruncated"):
            return
        token["ContinuationToken"] = page["NextContinuationToken"]


def _in_order(files: Iterable[File], order: Order) -> Iterator[File]:
    """Files in the order of their keys, put in ``order``: a container waits for ``a.tar-2``, which is before its members."""
    held: list[tuple[str, File]] = []
    for file in files:
        while held and held[0][0] < file.key:
            yield heapq.heappop(held)[1]
        if order(file.key) == file.key:
            yield file
        else:
            heapq.heappush(held, (order(file.key), file))
    while held:
        yield heapq.heappop(held)[1]
