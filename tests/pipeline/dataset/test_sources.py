"""Folders, patterns and single files as a sorted stream of items; bytes read ahead of their use."""

from __future__ import annotations

import inspect
import itertools
import os
import pickle
import socket
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moto.s3.models import s3_backends

from pipeline.dataset.ahead import read_ahead
from pipeline.dataset.listing import is_side_file, list_files
from pipeline.dataset.patterns import Patterns, expand_braces
from pipeline.dataset.sources import Item, open_source
from pipeline.errors import ConfigError, MediaError, OutputError
from pipeline.storage import Store
from tests.s3 import S3Server

ODD_NAMES = [
    "100% [a]*?.png", "a#b&c;d.jpg", "a.jpg", "a.png", "a::b.jpg", "naïve 東京.jpg", "new\nline.png", "no ending",
    "q'uo\"te\\.png", "s p a c e.jpg", "tab\t.png", "x" * 250, "~tilde{1,2}.png", "\U0001f600.png",
]  # fmt: skip


pytestmark = pytest.mark.usefixtures("short_waits")


def keys(url: str | Path, **options: str) -> list[str]:
    return [item.key for item in open_source(str(url), **options).items()]


def make(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


# Folders --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["", "/"])
def test_f1_every_name_is_listed_once_in_order_and_can_be_read(store_url: str, end: str) -> None:
    store = Store(store_url)
    beyond = {"memory": "::", "s3": "\n"}.get(store_url.partition("://")[0], "\0")  # of fsspec's memory, and of moto
    names = [name for name in ODD_NAMES if beyond not in name]
    wanted = sorted(f"{folder}{name}" for folder in ("", "a/", "a-b/deep er/", "a.d/") for name in names)
    for key in wanted:
        store.write(key, key.encode())
    source = pickle.loads(pickle.dumps(store_url + end))
    items = list(open_source(source).items())
    assert [item.key for item in items] == wanted
    assert [open_source(source).read(item).decode() for item in items] == wanted
    assert [item.size_bytes for item in items] == [len(key.encode()) for key in wanted]
    assert all(item.version and not item.member for item in items)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text("ab.-/0~\U0001f600é", min_size=1, max_size=8), max_size=20))
def test_f3_keys_rise_strictly_as_whole_strings(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    root = tmp_path_factory.mktemp("tree")
    made = set()
    for name in names:
        parts = [part for part in name.split("/") if part.strip(".") and not part.startswith(".")]
        path = root.joinpath(*parts)
        if parts and not path.exists() and not any(parent.is_file() for parent in path.parents):
            make(root, "/".join(parts))
            made.add("/".join(parts))
    assert keys(root) == sorted(made)


def test_changed_bytes_change_the_version(store_url: str) -> None:
    store = Store(store_url)
    versions = []
    for data in (b"one", b"two", b"three"):
        store.write("a.png", data)
        versions.append(next(open_source(store_url).items()).version)
        time.sleep(0.02)
    assert len(set(versions)) == 3


def test_hidden_files_and_our_own_results_are_not_listed(store_url: str) -> None:
    store = Store(store_url)
    hidden = [".a.png", ".git/a.png", "x/._b.png", "_swinir/rows/1.parquet", "old/_swinir/run.json", "_index.parquet"]
    for key in [*hidden, "out/a.png", "out/deep/b.png", "outer/c.png", "_DSC1.png"]:
        store.write(key, b"")
    assert keys(store_url, exclude=f"{store_url}/out/") == ["_DSC1.png", "outer/c.png"]
    assert keys(store_url) == ["_DSC1.png", "out/a.png", "out/deep/b.png", "outer/c.png"]


def test_an_excluded_folder_is_known_through_links(tmp_path: Path) -> None:
    make(tmp_path / "real", "a.png", "out/b.png")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert keys(tmp_path / "link", exclude=str(tmp_path / "real" / "out")) == ["a.png"]


def test_what_is_no_picture_is_an_item_all_the_same(tmp_path: Path) -> None:
    make(tmp_path, "a.mov", "a.jpg", "a.json", "b", "LICENSE")
    (tmp_path / "empty.png").touch()
    source = open_source(str(tmp_path))
    items = list(source.items())
    assert [item.key for item in items] == ["LICENSE", "a.jpg", "a.json", "a.mov", "b", "empty.png"]
    assert source.read(items[-1]) == b""
    assert [is_side_file(item.key) for item in items] == [True, False, True, False, False, False]


def test_f1_what_cannot_be_read_is_an_item_with_a_reason(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "locked.png", "no entry/b.png")
    (tmp_path / "broken.png").symlink_to("nothing")
    (tmp_path / "self.png").symlink_to("self.png")
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.png"))
    (tmp_path / "locked.png").chmod(0)
    (tmp_path / "no entry").chmod(0)
    try:
        source = open_source(str(tmp_path))
        reasons = {}
        for item in source.items():
            try:
                source.read(item)
                reasons[item.key] = ""
            except MediaError as error:
                reasons[item.key] = str(error)
    finally:
        (tmp_path / "no entry").chmod(0o700)
    for key, part in {"broken.png": "No such file", "self.png": "levels of symbolic links", "pipe.png": "not a regular file",
                      "socket.png": "cannot be read"}.items():  # fmt: skip
        assert part in reasons[key]
    assert reasons["a.png"] == ""
    assert all(str(tmp_path) in reason for reason in reasons.values() if reason)
    if os.geteuid():  # root may read everything
        assert "permission denied" in reasons["locked.png"]
        assert "cannot be listed: Permission denied" in reasons["no entry/"]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    make(tmp_path / "tree", "a/1.png", "b/2.png")
    make(tmp_path, "elsewhere/3.png")
    (tmp_path / "tree/a/up").symlink_to(tmp_path / "tree")
    (tmp_path / "tree/b/here").symlink_to(".")
    (tmp_path / "tree/c").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "tree/d.png").symlink_to(tmp_path / "elsewhere/3.png")
    assert keys(tmp_path / "tree") == ["a/1.png", "b/2.png", "c/3.png", "d.png"]


def test_a_name_that_is_not_utf8_is_listed_and_read(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/caf\xe9 %41.jpg", "wb") as file:
        file.write(b"old name")
    source = open_source(str(tmp_path))
    (item,) = source.items()
    assert item.key == "caf\ufffde9 %41.jpg"
    item.url.encode()
    assert source.read(item) == b"old name"


def test_folders_nest_deeper_than_calls(tmp_path: Path) -> None:
    make(tmp_path, "d/" * 300 + "a.png")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 200)
    try:
        assert [file.key for file in list_files(str(tmp_path))] == ["d/" * 300 + "a.png"]
    finally:
        sys.setrecursionlimit(limit)


def test_f5_a_large_tree_does_not_lie_in_memory(tmp_path: Path) -> None:
    names = [f"{folder:02d}/a rather long name of a picture {number:05d}.png" for folder in range(20) for number in range(100)]
    make(tmp_path, *names)
    tracemalloc.start()
    try:
        assert sum(1 for _ in list_files(str(tmp_path))) == 2000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200_000, f"{peak} bytes for 2000 names"


def test_f5_a_bucket_is_listed_page_by_page(s3: S3Server, s3_url: str) -> None:
    wanted = [f"{number % 7}/{number:05d}.png" for number in range(1500)]
    backend = s3_backends["123456789012"]["aws"]  # of the server: through HTTP this would take minutes
    for key in wanted:
        backend.put_object(s3_url.split("/")[2], f"a folder/{key}", b"")
    files = list_files(f"{s3_url}/")
    start = [file.key for file in itertools.islice(files, 10)]
    assert sum(method == "GET" for method, _, _ in s3.requests) == 1
    assert start + [file.key for file in files] == sorted(wanted) == keys(s3_url + "/")
    assert sum(method == "GET" for method, _, _ in s3.requests) == 4


def test_a_page_that_fails_is_asked_for_again(s3: S3Server, s3_url: str) -> None:
    Store(s3_url).write("a.png", b"")
    answers = iter([503, 500])
    s3.rule = lambda method, path: next(answers, None)
    assert keys(f"{s3_url}/") == ["a.png"]


def test_s3_folder_markers_are_no_files_and_an_empty_name_is_told(s3_url: str) -> None:
    store = Store(s3_url)
    for key in ("x/", "x/a.png", "x//b.png"):
        store._folder._fs.pipe_file(f"{s3_url}/{key}", b"1")  # type: ignore[attr-defined]
    source = open_source(s3_url)
    items = list(source.items())
    assert [item.key for item in items] == ["x//b.png", "x/a.png"]
    with pytest.raises(MediaError, match="an empty name in its path"):
        source.read(items[0])


# Patterns and single files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("*.png", ["a.png", "b.png"]),
        ("**/*.png", ["a.png", "b.png", "x/c.png", "x/y/d.png"]),
        ("x/**", ["x/c.png", "x/y/d.png", "x/y/e.jpg"]),
        ("x/*/[d-e].*", ["x/y/d.png", "x/y/e.jpg"]),
        ("?/c.png", ["x/c.png"]),
        ("{b,a}.png", ["a.png", "b.png"]),
        ("{a,x/*}.png", ["a.png", "x/c.png"]),
        ("**/[!a-c].{png,jpg}", ["x/y/d.png", "x/y/e.jpg"]),
        ("x/y/e.jpg", ["x/y/e.jpg"]),
    ],
)
def test_a_pattern_means_what_a_shell_would_mean(store_url: str, pattern: str, wanted: list[str]) -> None:
    for key in ("a.png", "b.png", "x/c.png", "x/y/d.png", "x/y/e.jpg", "x/.hidden.png", "z.txt"):
        Store(store_url).write(key, key.encode())
    source = open_source(f"{store_url}/{pattern}")
    found = {item.key: source.read(item).decode() for item in source.items()}
    assert list(found.values()) == wanted
    assert all(path.endswith(key) for key, path in found.items())


def test_a_folder_whose_name_looks_like_a_pattern_is_that_folder(tmp_path: Path) -> None:
    make(tmp_path / "[2019] {a,b}*", "a.png", "b.jpg")
    assert keys(tmp_path / "[2019] {a,b}*") == ["a.png", "b.jpg"]
    assert keys(tmp_path / "[2019] {a,b}*" / "*.png") == ["a.png"]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.sampled_from("ab"), min_size=1, max_size=5), st.lists(st.sampled_from(["a", "*", "**"]), min_size=1, max_size=4)
)
def test_no_folder_is_passed_over_that_holds_a_match(parts: list[str], pattern: list[str]) -> None:
    patterns = Patterns(["/".join(pattern)])
    if patterns.match("/".join(parts)):
        assert all(patterns.may_hold("/".join(parts[:depth])) for depth in range(1, len(parts)))


def test_braces_count_with_leading_zeros() -> None:
    assert expand_braces("{098..101}.tar") == ["098.tar", "099.tar", "100.tar", "101.tar"]
    assert expand_braces("a{x,y}{1..2}b{c}") == ["ax1b{c}", "ax2b{c}", "ay1b{c}", "ay2b{c}"]
    with pytest.raises(ConfigError, match="more than 1000000 files; use a glob"):
        expand_braces("{0..99999}{0..99}")


@pytest.mark.parametrize("name", ["nothing", "a{1..3}.png"])
def test_what_was_named_must_exist(store_url: str, name: str) -> None:
    for number in (1, 3):
        Store(store_url).write(f"a{number}.png", b"")
    with pytest.raises(MediaError, match="no such file"):
        keys(f"{store_url}/{name}")


def test_a_compressed_archive_is_refused_with_a_remedy() -> None:
    with pytest.raises(ConfigError, match="unpack it first"):
        open_source("s3://bucket/a.tar.gz")


# Reading --------------------------------------------------------------------------------------------------------------------


def test_storage_that_keeps_failing_is_not_the_pictures_fault(s3: S3Server, s3_url: str) -> None:
    Store(s3_url).write("a.png", b"1")
    source = open_source(s3_url)
    (item,) = source.items()
    s3.rule = lambda method, path: 403
    with pytest.raises(MediaError, match=r"a\.png: permission denied"):
        source.read(item)
    s3.rule = lambda method, path: 503
    with pytest.raises(OutputError, match="run the same command again to resume"):
        source.read(item)
    answers = iter([500, 503])
    s3.rule = lambda method, path: next(answers, None)
    assert source.read(item) == b"1"


def test_f5_requests_are_under_way_at_once_one_for_each_picture(s3: S3Server, s3_url: str) -> None:
    store = Store(s3_url)
    for number in range(32):
        store.write(f"{number:02d}.png", b"%d" % number)
    source = open_source(s3_url)
    items = list(source.items())
    source.read(items[0])
    s3.requests.clear()
    together = threading.Barrier(8)  # no request is answered before eight are there

    def wait(method: str, path: str) -> None:
        together.wait(timeout=60)

    s3.rule = wait
    assert [data for _, data in read_ahead(source, items, 8, 1 << 30)] == [b"%d" % number for number in range(32)]
    assert len(s3.requests) == 32


class Counted:
    """A source of blocks of memory that knows how many are out."""

    def __init__(self, bad: int = -1) -> None:
        self.bad, self.started = bad, 0

    def read(self, item: Item) -> bytes:
        self.started += 1
        number = int(item.key)
        time.sleep(0.002 * (number % 3))
        if number == self.bad:
            raise OutputError("storage is gone")
        if number % 10 == 7:
            raise MediaError(f"{number} is bad")
        return bytes(item.size_bytes)


def numbered(num_items: int, size_bytes: int) -> Iterator[Item]:
    return (Item(f"{number:04d}", "", "", size_bytes, "") for number in range(num_items))


@pytest.mark.parametrize("size_bytes", [1, 100, 5000])
def test_reading_ahead_keeps_the_order_the_errors_and_the_budget(size_bytes: int) -> None:
    source = Counted()
    for taken, (item, data) in enumerate(read_ahead(source, numbered(200, size_bytes), 4, 1000)):  # type: ignore[arg-type]
        assert int(item.key) == taken
        if taken % 10 == 7:
            assert isinstance(data, MediaError)
        else:
            assert isinstance(data, bytes)
            assert len(data) == size_bytes
        assert source.started - taken - 1 <= max(1, min(64, 1000 // size_bytes))
    assert taken == 199


def test_reading_ahead_stops_where_storage_fails_and_when_closed() -> None:
    ahead = read_ahead(Counted(bad=5), numbered(100, 1), 4, 1000)  # type: ignore[arg-type]
    with pytest.raises(OutputError, match="storage is gone"):
        for _ in ahead:
            pass
    before = threading.active_count()
    source = Counted()
    ahead = read_ahead(source, numbered(1000, 1), 4, 1000)  # type: ignore[arg-type]
    next(ahead)
    ahead.close()
    assert threading.active_count() == before
    assert source.started < 100
