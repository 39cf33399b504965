"""Where pictures come from: a sorted stream of items out of folders, tar files, Parquet files and lists of URLs."""

from __future__ import annotations

import os
import threading
import urllib.parse
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

from pipeline.dataset.listing import CONTAINERS, is_side_file, list_files, look_at
from pipeline.dataset.parquet import PictureColumn
from pipeline.dataset.reading import NoPictureError, is_web, local_url, one_line, opened, place_of, read_bytes, read_range
from pipeline.dataset.tar import Member, list_members
from pipeline.dataset.walking import File
from pipeline.errors import ConfigError, MediaError, OutputError
from pipeline.stages import in_parallel
from pipeline.storage import local_path

MAX_BYTES = 4 << 30  # of a picture's file; a longer one is something else, and would not fit into memory

_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip", ".7z", ".rar")
_LIST_THREADS = 4
_LOOK_THREADS = 32
_BATCH_FILES = 1000
_OPEN_COLUMNS = 4
_PROBLEM = "!"  # begins the ``member`` of an item that cannot be read; the reason follows
_ASIDE = "-"  # begins that of one that nobody takes for a picture
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Item:
    """One input: it will be one row of the index, whatever it turns out to be.

    ``key`` is its path below the root of the source; within a container, the container's path, ``/`` and the member's name or
    9-digit row. A key that ends with ``/`` is a folder or container that cannot be read (to its end).
    ``member`` is "" for a file of its own, else what ``Source.read`` needs to find it in the container ``url``.
    ``size_bytes`` is 0 where it is not known yet, and a mean for rows of Parquet. ``version`` changes with the bytes, as far as
    storage tells; it is "" for what a URL leads to in the web, where a change is not noticed.
    """

    key: str
    url: str
    member: str
    size_bytes: int
    version: str

    @property
    def is_aside(self) -> bool:
        """Whether it is known to be nothing that anybody takes for a picture; reading it raises NoPictureError."""
        return self.member.startswith(_ASIDE)


class Source(Protocol):
    """An archive. ``items`` is for the driver; ``read`` may be called from several threads, on any machine."""

    def items(self) -> Iterator[Item]:
        """All inputs with strictly rising keys, as a stream: memory holds a folder's names or the members of a few tars.

        Raises MediaError or ConfigError where the archive is not as it was named.
        """
        ...

    def read(self, item: Item) -> bytes:
        """The bytes of an item.

        Raises MediaError where it cannot be had, NoPictureError of them where nobody expects a picture, and OutputError where
        storage keeps failing or the item's container has changed.
        """
        ...


def open_source(url: str, image_column: str | None = None, url_column: str | None = None, exclude: str | None = None) -> Source:
    """The archive that ``url`` means: a folder, file, or pattern of them, with all tar and Parquet files in it opened.

    A text file of URLs counts as one where its name, or the pattern's, ends with ``.txt``. The folder ``exclude`` is left out.
    Looks at nothing yet; ConfigError where the ending alone says that it cannot be read.
    """
    if url.lower().endswith(_PACKED):
        raise ConfigError(
            f"{url} cannot be read in parts because it is compressed; unpack it first, into a folder or a plain .tar"
        )
    path = local_path(url)
    if path is not None and is_side_file(path) and not url.lower().endswith(".txt") and os.path.isfile(path):
        raise ConfigError(f"{url} is no picture and no list of them; lists are .txt, with one path or URL a line, or .parquet")
    return _Archive(url, image_column, url_column, exclude)


class _Archive:
    def __init__(self, url: str, image_column: str | None, url_column: str | None, exclude: str | None) -> None:
        self._url, self._columns, self._exclude = url, (image_column, url_column), exclude
        self._is_list = url.lower().endswith(".txt")
        self._lock = threading.Lock()
        self._opened: OrderedDict[str, PictureColumn] = OrderedDict()
        self._known: dict[str, str] = {}

    def items(self) -> Iterator[Item]:
        last = ""
        with ThreadPoolExecutor(_LIST_THREADS) as pool:
            files = list_files(self._url, self._exclude, (*CONTAINERS, ".txt") if self._is_list else CONTAINERS)
            batches = _batches(files, self._is_container)
            for batch in in_parallel(pool, self._expand, batches, _LIST_THREADS):
                for item in batch:
                    if item.key <= last:
                        raise MediaError(
                            one_line(f"{item.url}: has the key {item.key!r}, which is not after {last!r}; rename one")
                        )
                    last = item.key
                    yield item

    def read(self, item: Item) -> bytes:
        if item.member.startswith(_PROBLEM):
            raise MediaError(item.member.removeprefix(_PROBLEM))
        if item.is_aside:
            raise NoPictureError(item.member.removeprefix(_ASIDE))
        if item.size_bytes > MAX_BYTES:
            raise MediaError(
                one_line(f"{item.url}: {item.size_bytes} bytes are more than any picture has; the limit is {MAX_BYTES}")
            )
        if not item.member:
            return read_bytes(item.url)
        self._check_unchanged(item)
        if _ending(item.url) == ".tar":
            return read_range(item.url, int(item.member), item.size_bytes)
        value = self._column(item.url).picture(int(item.member))
        if value is None:
            raise MediaError(one_line(f"{item.url}: row {item.member} holds no picture"))
        return value if isinstance(value, bytes) else read_bytes(_beside(item.url, value))

    def _is_container(self, file: File) -> bool:
        return not file.problem and (_ending(file.url) in CONTAINERS or self._is_list)

    def _expand(self, files: list[File]) -> Iterable[Item]:
        """The items of some files, or of one container, whose header alone has been read when this returns."""
        first = files[0]
        if not self._is_container(first):
            return [
                _problem(file.key, file, file.problem)
                if file.problem
                else Item(file.key, file.url, "", file.size_bytes, file.version)
                for file in files
            ]
        try:
            if self._is_list:
                return _urls(first, ((row, line) for row, line in enumerate(_lines(first.url)) if line.strip()))
            return self._members(first) if _ending(first.url) == ".tar" else self._rows(first)
        except NoPictureError as error:
            if _ending(self._url) == _ending(first.url):  # asked for by name, not come across in a folder
                raise ConfigError(str(error)) from error
            return [Item(f"{first.key}/", first.url, f"{_ASIDE}{error}", 0, first.version)]
        except MediaError as error:
            return [_problem(f"{first.key}/", first, str(error))]

    def _members(self, file: File) -> list[Item]:
        found = list_members(file.url)
        problem = one_line(f"{file.url}: the tar is damaged or cut short: {found.damage}; what is missing cannot be told")
        damage = [_problem(f"{file.key}/", file, problem)] if found.damage else []
        return damage + [
            Item(f"{file.key}/{member.name}", file.url, _place(member, file.url), member.size_bytes, file.version)
            for member in found.files
        ]

    def _rows(self, file: File) -> Iterator[Item]:
        column = PictureColumn(file.url, *self._columns)
        if column.holds_urls:
            return _urls(file, enumerate(column.values()))
        return (
            Item(f"{file.key}/{row:09d}", file.url, str(row), size_bytes, file.version)
            for row, size_bytes in enumerate(column.sizes())
        )

    def _column(self, url: str) -> PictureColumn:
        with self._lock:
            column = self._opened.pop(url, None) or PictureColumn(url, *self._columns)
            self._opened[url] = column
            while len(self._opened) > _OPEN_COLUMNS:
                self._opened.popitem(last=False)
        return column

    def _check_unchanged(self, item: Item) -> None:
        version = self._known.get(item.url) or look_at(item.url, "").version
        self._known[item.url] = version
        if version != item.version:
            raise OutputError(one_line(f"{item.url} has changed since it was listed; run the same command again"))


def _batches(files: Iterable[File], is_container: Callable[[File], bool]) -> Iterator[list[File]]:
    """Each container by itself, other files by the thousand."""
    batch: list[File] = []
    for file in files:
        alone = is_container(file)
        if batch and (alone or len(batch) == _BATCH_FILES):
            yield batch
            batch = []
        if alone:
            yield [file]
        else:
            batch.append(file)
    if batch:
        yield batch


def _problem(key: str, file: File, reason: str) -> Item:
    return Item(key, file.url, _PROBLEM + reason, 0, file.version)


def _place(member: Member, url: str) -> str:
    """What ``Source.read`` needs to find a member of the tar ``url``."""
    if member.problem or member.aside:
        return f"{_PROBLEM if member.problem else _ASIDE}{one_line(f'{url}: {member.name}: {member.problem or member.aside}')}"
    return str(member.offset)


def _ending(url: str) -> str:
    path = urllib.parse.urlsplit(url).path if is_web(url) else url
    return os.path.splitext(path)[1].lower()


def _urls(file: File, rows: Iterator[tuple[int, str | None]]) -> Iterator[Item]:
    """An item for each URL of a list, under the number of its row."""
    with ThreadPoolExecutor(_LOOK_THREADS) as pool:
        yield from in_parallel(pool, _looked_at, _listed(file, rows), 4 * _LOOK_THREADS)


def _listed(file: File, rows: Iterator[tuple[int, str | None]]) -> Iterator[Item]:
    row = -1
    try:
        for row, value in rows:
            key = f"{file.key}/{row:09d}"
            if value is None or not value.strip():
                yield _problem(key, file, one_line(f"{file.url}: row {row} holds no URL"))
            else:
                yield Item(key, _beside(file.url, value.strip()), "", 0, "")
    except MediaError as error:
        yield _problem(f"{file.key}/{row + 1:09d}", file, f"{error}; this and all later rows are missing")


def _looked_at(item: Item) -> Item:
    """With size and version, so that a change is noticed; not what lies in the web, where a request costs too much."""
    if item.member or is_web(item.url):
        return item
    try:
        found = look_at(item.url, item.key)
    except MediaError:  # whoever reads it is told why
        return item
    return replace(item, size_bytes=found.size_bytes, version=found.version)


def _beside(list_url: str, value: str) -> str:
    """A URL or path as it stands in the file ``list_url``: a relative one lies beside that file."""
    scheme, sign, rest = value.partition("://")
    place = place_of(list_url)
    if not sign and not place:
        return local_url(os.path.normpath(os.path.join(os.path.dirname(list_url), value)))
    value = value.encode(errors="surrogateescape").decode(errors="replace")
    if not sign:
        return place + value if value.startswith("/") else f"{list_url.rpartition('/')[0]}/{value}"
    value = f"{scheme.lower()}://{rest}"
    return local_path(value) or value


def _lines(url: str) -> Iterator[str]:
    """The lines of a text file, as a stream."""
    with opened(url) as file:
        rest = file.read(_CHUNK_BYTES).removeprefix(b"\xef\xbb\xbf")
        while rest:
            *lines, rest = rest.split(b"\n")
            for line in lines:
                yield line.decode(errors="surrogateescape")
            chunk = file.read(_CHUNK_BYTES)
            if not chunk:
                break
            rest += chunk
        if rest:
            yield rest.decode(errors="surrogateescape")
