"""One contract for every kind of storage, and the traps of each."""

from __future__ import annotations

import errno
import os
import pickle
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from pipeline import retry
from pipeline.errors import ConfigError, OutputError
from pipeline.inputs import identify
from pipeline.storage import Store, local_path, split_url
from tests.s3 import S3Server

ODD_NAMES = ["plain.mp4", "with space.mp4", "100% [a]*?.mp4", "naïve 東京 'q\" .mp4", "a#b&c;d.mp4", "x" * 250]


pytestmark = pytest.mark.usefixtures("short_waits")


# The contract ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ODD_NAMES)
def test_what_is_written_is_read_listed_and_deleted(store: Store, name: str) -> None:
    key = f"deep/er/{name}"
    assert not store.exists(key)
    store.write(key, b"one")
    store.write(key, b"three")
    assert (store.exists(key), store.size_bytes(key), store.read(key)) == (True, 5, b"three")
    assert list(store.list()) == list(store.list("deep")) == list(store.list("deep/")) == [key]
    store.delete(key)
    store.delete(key)
    assert list(store.list()) == []


def test_a_missing_key_is_file_not_found(store: Store, tmp_path: Path) -> None:
    store.write("folder/file", b"")
    for key in ("nothing", "folder"):
        assert not store.exists(key)
        for ask in (store.size_bytes, store.read, lambda key: store.download(key, tmp_path / "x")):
            with pytest.raises((FileNotFoundError, IsADirectoryError, OutputError)):
                ask(key)
    assert list(store.list("nothing")) == []
    assert not (tmp_path / "x").exists()


def test_files_go_up_and_down_whole(store: Store, tmp_path: Path) -> None:
    data = random.Random(0).randbytes(200_000)
    (tmp_path / "here").write_bytes(data)
    store.upload(tmp_path / "here", "big file")
    store.download("big file", tmp_path / "back" / "there")
    assert (tmp_path / "back" / "there").read_bytes() == data
    assert sorted(os.listdir(tmp_path / "back")) == ["there"]


def test_a_file_that_is_taken_has_one_name_at_any_time(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").write_bytes(b"the whole film")
    monkeypatch.setattr("pipeline.folders.os.link", None)
    monkeypatch.setattr("pipeline.folders.shutil.copyfile", None)
    store.take(tmp_path / "here", "there")
    assert store.read("there") == b"the whole film"
    assert list(store.list()) == ["there"]


def test_a_file_of_another_disk_is_taken_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replace(source: Path, target: Path) -> None:
        if source.name == "here":
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        os.rename(source, target)

    (tmp_path / "here").write_bytes(b"the whole film")
    monkeypatch.setattr("pipeline.folders.os.replace", replace)
    Store(str(tmp_path / "out")).take(tmp_path / "here", "there")
    assert os.listdir(tmp_path / "out") == ["there"]


def test_a_large_file_goes_up_in_parts(s3_url: str, s3: S3Server, tmp_path: Path) -> None:
    data = random.Random(0).randbytes(101 * 2**20)
    (tmp_path / "here").write_bytes(data)
    Store(s3_url).upload(tmp_path / "here", "big")
    assert sum(method == "PUT" for method, _, _ in s3.requests) > 1
    Store(s3_url).download("big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data


def test_results_that_are_equal_are_files_of_their_own_even_if_stored_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, local = Store(str(tmp_path / "out")), tmp_path / "local"
    local.write_bytes(b"made once")
    meeting, link = threading.Barrier(2), os.link

    def link_with_the_other(*paths: Path) -> None:
        meeting.wait(10)
        link(*paths)

    monkeypatch.setattr("pipeline.folders.os.link", link_with_the_other)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(partial(store.upload, local), ["a", "b"]))
    local.unlink()
    assert [(tmp_path / "out" / key).stat().st_nlink for key in "ab"] == [1, 1]


def test_an_upload_that_fails_half_way_publishes_nothing(s3_url: str, s3: S3Server, tmp_path: Path) -> None:
    (tmp_path / "here").write_bytes(bytes(101 * 2**20))
    num_puts = iter(range(1000))
    s3.rule = lambda method, path: 403 if method == "PUT" and next(num_puts) >= 1 else None
    with pytest.raises(ConfigError, match=r"may not write s3://.*check the permissions"):
        Store(s3_url).upload(tmp_path / "here", "big")
    s3.rule = None
    assert list(Store(s3_url).list()) == []


def test_exactly_one_of_sixteen_racers_creates(store: Store) -> None:
    barrier = threading.Barrier(16)

    def race(number: int) -> bool:
        barrier.wait()
        return store.create_once("commits/unit.json", f"{number}".encode())

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(race, range(16)))
    assert sum(won) == 1
    assert store.read("commits/unit.json") == str(won.index(True)).encode()
    assert list(store.list()) == ["commits/unit.json"]
    assert not store.create_once("commits/unit.json", b"late")


def test_a_listing_is_fresh_even_from_another_store(store: Store) -> None:
    reader = Store(store.url)
    for number in range(5):
        store.write(f"commits/{number}", b"")
        assert len(list(reader.list("commits"))) == number + 1


def test_a_prefix_is_a_folder_not_the_start_of_a_name(store: Store) -> None:
    for key in ("a/1", "ab/2", "a/b/3"):
        store.write(key, b"")
    assert sorted(store.list("a")) == ["a/1", "a/b/3"]
    store.delete_all("a")
    assert list(store.list()) == ["ab/2"]
    store.delete_all("a")
    store.delete_all("")
    assert list(store.list()) == []


def test_only_the_url_is_pickled(store: Store) -> None:
    store.write("key", b"data")
    assert pickle.loads(pickle.dumps(store)).read("key") == b"data"
    assert len(pickle.dumps(store)) < 300


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write("key", b"x" * 500_000)
    stop, sizes = threading.Event(), set()

    def watch() -> None:
        while not stop.is_set():
            sizes.add(len(store.read("key")))

    thread = threading.Thread(target=watch)
    thread.start()
    for size in range(500_000, 500_030):
        store.write("key", b"y" * size)
    stop.set()
    thread.join()
    assert min(sizes) >= 500_000


def test_a_local_write_that_fails_leaves_the_old_content_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))
    store.write("key", b"old")

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"cannot write .*/key: no space left; free some and run"):
        store.write("key", b"new")
    with pytest.raises(OutputError, match="no space left"):
        store.create_once("other", b"new")
    assert store.read("key") == b"old"
    assert os.listdir(tmp_path) == ["key"]


def test_leftovers_of_a_killed_writer_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / ".0123.part").write_bytes(b"half")
    (tmp_path / "film.part").write_bytes(b"a user's own")
    assert list(Store(str(tmp_path)).list()) == ["film.part"]


def test_without_hard_links_creation_is_still_exclusive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*args: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_link)
    store = Store(str(tmp_path))
    assert [store.create_once("key", b"1"), store.create_once("key", b"2")] == [True, False]
    assert store.read("key") == b"1"


# Faults ---------------------------------------------------------------------------------------------------------------------


def test_every_write_succeeds_where_40_percent_of_the_requests_fail(s3_url: str, s3: S3Server) -> None:
    rng = random.Random(1)
    s3.rule = lambda method, path: rng.choice([500, 503]) if rng.random() < 0.4 else None
    store = Store(s3_url)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda n: store.create_once(f"commits/{n}", b"{}"), range(20)))
        list(pool.map(lambda n: store.write(f"data/{n}", b"x" * 1000), range(20)))
        assert all(len(data) == 1000 for data in pool.map(lambda n: store.read(f"data/{n}"), range(20)))
    assert len(list(store.list("commits"))) == 20


@pytest.mark.parametrize("method", ["PUT", "GET", "HEAD"])
def test_refused_access_is_final_at_once(s3_url: str, s3: S3Server, method: str) -> None:
    store = Store(s3_url)
    store.write("key", b"")
    s3.rule = lambda m, path: 403 if m == method else None
    s3.requests.clear()
    ask = {"PUT": lambda: store.write("key", b"x"), "GET": lambda: store.read("key"), "HEAD": lambda: store.size_bytes("key")}
    with pytest.raises(
        ConfigError, match=r"may not (read|write) s3://.*/a folder/key: .*; check the permissions and credentials"
    ):
        ask[method]()
    assert sum(status == 403 for _, _, status in s3.requests) <= 2  # s3fs asks info() twice, by key and by listing


def test_storage_that_stays_broken_is_an_error_that_says_how_to_go_on(s3_url: str, s3: S3Server) -> None:
    s3.rule = lambda method, path: 503 if method == "PUT" else None
    with pytest.raises(OutputError, match=r"cannot write s3://.*; run the same command again to resume"):
        Store(s3_url).write("key", b"")
    assert len(s3.requests) >= len(retry.DELAYS_S) + 1


def test_a_missing_bucket_is_named(s3: S3Server) -> None:
    with pytest.raises(ConfigError, match="cannot write s3://no-such-bucket/key: there is no such bucket; create it first"):
        Store("s3://no-such-bucket").write("key", b"")
    with pytest.raises(ConfigError, match="cannot list s3://no-such-bucket/folder: there is no such bucket; create it first"):
        next(Store("s3://no-such-bucket").list("folder"))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TimeoutError(), True),
        (ConnectionResetError(), True),
        (OSError(errno.EBUSY, "SlowDown"), True),
        (OSError(errno.ENOSPC, "full"), False),
        (PermissionError(), False),
        (FileNotFoundError(), False),
        (FileExistsError(), False),
        (ValueError(), False),
    ],
)
def test_what_may_pass_is_tried_again(error: Exception, expected: bool) -> None:
    assert retry.is_transient(error) is expected


def test_waits_grow_and_end() -> None:
    waits: list[float] = []

    def fail() -> None:
        raise TimeoutError("slow")

    with pytest.raises(TimeoutError, match="slow"):
        retry.call(fail, waits.append)
    assert len(waits) == len(retry.DELAYS_S)


def test_writing_to_a_place_for_reading_is_refused() -> None:
    with pytest.raises(ConfigError, match="this kind of storage is only for reading"):
        Store("http://127.0.0.1:9/folder").write("key", b"")


# Names ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ODD_NAMES)
def test_local_paths_are_taken_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for url in (str(tmp_path / name), name, f"./{name}", f"~/{name}", (tmp_path / name).as_uri()):
        store, key = split_url(url)
        assert (store.url, key) == (str(tmp_path), name)
        assert identify(url).url == str(tmp_path / name)


def test_remote_names_split_at_the_last_slash() -> None:
    store, name = split_url("s3://bucket/a b/c%20d.mp4")
    assert (store.url, name) == ("s3://bucket/a b", "c%20d.mp4")
    assert local_path("s3://bucket/x") is None


@pytest.mark.parametrize("url", ["s3://bucket", "s3://bucket/", "s3://bucket/folder/", "/tmp", "/tmp/", "somewhere/"])
def test_a_folder_is_not_a_file_name(url: str) -> None:
    with pytest.raises(ConfigError, match="names a folder, not a file; add a file name"):
        split_url(url)
