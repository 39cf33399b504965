"""What a folder, a pattern or a file means as a source: which files, and in what order they come."""

from __future__ import annotations

import os
import stat
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipeline import retry
from pipeline.dataset.patterns import Patterns, expand_braces, has_braces, has_magic
from pipeline.dataset.reading import explained, is_web, local_file, local_url, one_line, place_of, remote
from pipeline.dataset.walking import File, local, readable, walk
from pipeline.errors import MediaError
from pipeline.inputs import version_of
from pipeline.storage import local_path

CONTAINERS = (".tar", ".parquet")
_SIDE_ENDINGS = frozenset({
    ".aae", ".cls", ".csv", ".db", ".htm", ".html", ".ini", ".json", ".jsonl", ".log", ".md", ".md5", ".npy", ".npz",
    ".safetensors", ".sha256", ".tsv", ".txt", ".xml", ".xmp", ".yaml", ".yml",
})  # fmt: skip
_LOOK_THREADS = 16


def is_side_file(key: str) -> bool:
    """Whether a file only accompanies pictures, such as ``.json`` and ``.xmp``: nobody expects it to be one."""
    name = key.rpartition("/")[2]
    return os.path.splitext(name)[1].lower() in _SIDE_ENDINGS or name == "LICENSE"


def list_files(url: str, exclude: str | None = None, containers: tuple[str, ...] = CONTAINERS) -> Iterator[File]:
    """The files that ``url`` means, as a stream: memory holds the names of a folder and those above it, or one page.

    They come in the order of their keys, except that those with an ending of ``containers`` count as folders: their members
    are to come in their place.

    ``url`` is a file, a folder (all below it), or a pattern, unless a file or folder of just that name exists. A folder
    ``exclude`` is left out, and so is what ``is_hidden``. Links are followed, but not back up into a folder that contains them.
    Raises MediaError where a file that is named does not exist.
    """

    def order(key: str) -> str:
        return f"{key}/" if key.lower().endswith(containers) else key

    path = local_path(url)
    where = url if path is None else path + "/" * (url.endswith("/") and path != "/")
    if _is_pattern(where):
        root = _literal_root(where)
        names = sorted(set(expand_braces(where[len(root) :])), key=order)
        if not is_web(where) and any(map(has_magic, names)):
            yield from walk(root, Patterns(names), exclude, order)
            return
        with ThreadPoolExecutor(_LOOK_THREADS) as pool:
            yield from pool.map(lambda name: look_at(root + name, name), names)
    elif _is_folder(where):
        yield from walk(where.removesuffix("/") + "/", None, exclude, order)
    else:
        name = urllib.parse.urlsplit(where).path if is_web(where) else where
        yield look_at(local_url(where), readable(name.rpartition("/")[2]))


def root_of(url: str) -> str:
    """The folder that the keys of ``list_files(url)`` are relative to, links in it followed."""
    path = local_path(url)
    where = url if path is None else path
    if _is_pattern(where):
        folder = _literal_root(where)
    elif _is_folder(where):
        folder = where
    else:
        folder = where.rpartition("/")[0]
    return os.path.realpath(folder or ".") if path is not None else folder


def look_at(url: str, key: str) -> File:
    """One file that was named. Raises MediaError where it is missing or a folder."""
    with explained(url):
        if not place_of(url):
            status = os.stat(local_file(url))
            if not stat.S_ISDIR(status.st_mode):
                return local(key, url, status)
        else:
            info = _info(url)
            if info["type"] != "directory":
                return File(key, url, info["size"] or 0, version_of(info))
    raise MediaError(one_line(f"{url}: is a folder, not a file"))


def _is_pattern(where: str) -> bool:
    return (has_braces(where) or (has_magic(where) and not is_web(where))) and not _exists(where)


def _exists(where: str) -> bool:
    if not place_of(where):
        return os.path.exists(where)
    filesystem, path = remote(where)
    with explained(where):
        return not is_web(where) and bool(retry.call(lambda: filesystem.exists(path)))


def _is_folder(where: str) -> bool:
    if not place_of(where):
        return os.path.isdir(where)
    if where.endswith("/") or where == place_of(where):
        return True
    with explained(where):
        return not is_web(where) and _info(where)["type"] == "directory"


def _info(url: str) -> dict[str, Any]:
    filesystem, path = remote(url)
    info: dict[str, Any] = retry.call(lambda: filesystem.info(path))
    return info


def _literal_root(where: str) -> str:
    """The folder, with ``/`` at its end, above the first part of a pattern that is no plain name."""
    root = place_of(where) + "/"
    for part in where[len(root) :].split("/")[:-1]:
        if any(sign in part for sign in "*?[{") and (place_of(where) or not os.path.exists(root + part)):
            break
        root += f"{part}/"
    return root
