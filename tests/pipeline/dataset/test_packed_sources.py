"""Pictures inside tar and Parquet files, and behind lists of URLs."""

from __future__ import annotations

import io
import os
import random
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dataset.ahead import read_ahead
from pipeline.dataset.sources import open_source
from pipeline.errors import ConfigError, MediaError, OutputError
from pipeline.storage import Store
from tests.s3 import S3Server

JPEG = b"\xff\xd8\xff rest"


pytestmark = pytest.mark.usefixtures("short_waits")


def tar(members: dict[str, bytes], links: dict[str, str] | None = None, kind: bytes = tarfile.LNKTYPE) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            file.addfile(info)
    return sink.getvalue()


def parquet(columns: dict[str, pa.Array], group: int = 3, metadata: dict[str, str] | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), sink, row_group_size=group)
    return sink.getvalue().to_pybytes()


def contents(url: str, **options: str) -> dict[str, bytes | str]:
    """What each key holds, or the reason why it cannot be had."""
    source = open_source(url, **options)
    found: dict[str, bytes | str] = {}
    for item, data in read_ahead(source, source.items(), 4, 1000):
        assert list(found) < [*found, item.key]
        found[item.key] = data if isinstance(data, bytes) else str(data)
    assert list(found) == sorted(found)
    return found


# Tar ------------------------------------------------------------------------------------------------------------------------


def test_pictures_of_webdataset_shards_are_found_by_ending_or_first_bytes(store_url: str) -> None:
    store = Store(store_url)
    store.write("0.tar", tar({"b.jpg": b"not one, though", "a.json": b"{}", "b.cls": b"1", "odd": JPEG, "x.bin": b"1234"}))
    store.write("1.tar", tar({"./d e/\u6771.PNG": b"1", "._f.png": b"2", "g" * 200 + ".webp": b"", "d e//\u6771.PNG": b"3"}))
    url = f"{store_url}/{{0..1}}.tar"
    assert contents(url) == {
        "0.tar/b.jpg": b"not one, though", "0.tar/odd": JPEG,
        "0.tar/x.bin": f"{store_url}/0.tar: x.bin: no picture, by its name and its first bytes",
        "1.tar/d e/\u6771.PNG": b"3", f"1.tar/{'g' * 200}.webp": b"",
    }  # fmt: skip


def test_keys_rise_across_tars_and_files_whose_names_begin_alike(store_url: str) -> None:
    for key in ("a.tar", "a.tar-2.tar", "a.tar.tar"):
        Store(store_url).write(key, tar({"x.png": key.encode()}))
    for key in ("a.tar!.png", "a.tar0.png", "a"):
        Store(store_url).write(key, key.encode())
    assert list(contents(store_url)) == [
        "a", "a.tar!.png", "a.tar-2.tar/x.png", "a.tar.tar/x.png", "a.tar/x.png", "a.tar0.png"
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_a_link_in_a_tar_is_the_picture_it_leads_to(tmp_path: Path, kind: bytes) -> None:
    up = "../" if kind == tarfile.SYMTYPE else ""  # a hard link names its target from the root
    links = {"b/c.png": f"{up}b.png", "b.png": "./a.png", "d.png": "missing.png", "e.png": "e.png", "f.png": "../a.png"}
    links |= {"g.png": ".h.png", ".h.png": "..data/h.png"}
    (tmp_path / "a.tar").write_bytes(tar({"a.png": b"one", "..data/h.png": b"hidden"}, links, kind))
    where = f"{tmp_path}/a.tar: "
    assert contents(str(tmp_path / "a.tar")) == {
        "a.tar/a.png": b"one",
        "a.tar/b.png": b"one",
        "a.tar/b/c.png": b"one",
        "a.tar/d.png": f"{where}d.png: a link to 'missing.png', which is not in the tar",
        "a.tar/e.png": f"{where}e.png: a link to 'e.png', which is not in the tar",
        "a.tar/f.png": f"{where}f.png: a link to '../a.png', which is not in the tar",
        "a.tar/g.png": b"hidden",
    }


@pytest.mark.parametrize(
    ("cut", "kept", "reason"),
    [
        (slice(0, 512 + 100), [], "ends in the middle: 100 of 600 bytes"),
        (slice(0, 512 + 1024), ["a.png"], "no end mark at byte 1536"),
        (slice(0, 512 + 1024 + 200), ["a.png"], "no end mark at byte 1536"),
        (slice(0, 100), [], "cannot be read: truncated header"),
        (slice(0, 0), [], "cannot be read: empty file"),
    ],
)
def test_a_damaged_tar_costs_a_row_and_not_what_is_whole(tmp_path: Path, cut: slice, kept: list[str], reason: str) -> None:
    (tmp_path / "x.tar").write_bytes(tar({"a.png": b"1" * 600, "b.png": b"2" * 600})[cut])
    (tmp_path / "y.png").write_bytes(b"y")
    found = contents(str(tmp_path))
    assert found.pop("y.png") == b"y"
    assert [key for key, data in found.items() if isinstance(data, bytes)] == [f"x.tar/{name}" for name in kept]
    assert any(reason in str(data) for data in found.values())
    assert "x.tar/" in found


def test_a_tar_that_was_replaced_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(tar({"a.png": b"1"}))
    source = open_source(str(path))
    (item,) = source.items()
    path.write_bytes(tar({"a.png": b"2", "b.png": b"3"}))
    with pytest.raises(OutputError, match=r"has changed since it was listed; run the same command again"):
        source.read(item)


# Parquet --------------------------------------------------------------------------------------------------------------------


def struct(*values: tuple[bytes | None, str | None]) -> pa.Array:
    return pa.array(
        [{"bytes": data, "path": path} for data, path in values], pa.struct({"bytes": pa.binary(), "path": pa.string()})
    )


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), "struct", pa.dictionary(pa.int32(), pa.binary())])
def test_rows_of_a_folder_of_parquet_files(store_url: str, kind: pa.DataType | str) -> None:
    store = Store(store_url)
    for name in ("data/train-0.parquet", "data/train-1.parquet"):
        values = [f"{name} {row}".encode() for row in range(10)]
        column = struct(*((value, None) for value in values)) if kind == "struct" else pa.array(values).cast(kind)
        store.write(name, parquet({"label": pa.array(range(10)), "picture": column}))
    found = contents(store_url)
    assert list(found) == [f"data/train-{file}.parquet/{row:09d}" for file in range(2) for row in range(10)]
    assert all(data == f"{key[:20]} {int(key[-9:])}".encode() for key, data in found.items())


def test_rows_may_be_asked_for_in_any_order(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(parquet({"image": pa.array([b"%d" % row for row in range(500)])}, group=200))
    source = open_source(str(tmp_path / "a.parquet"))
    items = list(source.items())
    random.Random(0).shuffle(items)
    assert [source.read(item) for item in items] == [b"%d" % int(item.member) for item in items]
    assert {item.size_bytes for item in items} < set(range(1, 20))


def test_a_row_group_is_fetched_once_for_rows_in_order(s3: S3Server, s3_url: str) -> None:
    pictures = [random.Random(row).randbytes(1 << 17) for row in range(64)]
    Store(s3_url).write("a.parquet", parquet({"image": pa.array(pictures)}, group=16))
    source = open_source(s3_url)
    items = list(source.items())
    s3.requests.clear()
    assert [data for _, data in read_ahead(source, items, 4, 4 << 20)] == pictures
    assert sum(method == "GET" for method, _, _ in s3.requests) < 16  # 8 MiB in blocks of 4 MiB, and the footer


def test_rows_without_bytes_name_their_file_or_are_told(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"beside")
    column = struct((b"here", "x.png"), (None, "b.png"), (None, None), (None, "gone.png"))
    (tmp_path / "a.parquet").write_bytes(parquet({"image": column}))
    found = list(contents(str(tmp_path / "a.parquet")).values())
    assert found[:2] == [b"here", b"beside"]
    assert "row 2 holds no picture" in str(found[2])
    assert "gone.png: no such file" in str(found[3])


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ("ab", {}, "several columns that may hold the pictures: a, b; choose by --image-column"),
        ("ab", {"image_column": "c"}, "has no column 'c'; its columns are a, b, n, url"),
        ("ab", {"image_column": "n"}, "has no pictures in 'n'"),
        ("ab", {"url_column": "a"}, "has no URLs in 'a'"),
        ("", {"image_column": "a"}, "has no column 'a'; its columns are n, url"),
    ],
)
def test_the_column_must_be_plain(tmp_path: Path, columns: str, options: dict[str, str], message: str) -> None:
    others = {"n": pa.array([1]), "url": pa.array(["x.png"])}
    (tmp_path / "a.parquet").write_bytes(parquet({**{name: pa.array([b"1"]) for name in columns}, **others}))
    with pytest.raises(ConfigError, match=message):
        list(open_source(str(tmp_path), **options).items())
    assert contents(str(tmp_path), image_column="url")["a.parquet/000000000"] == f"{tmp_path}/x.png: no such file"


def test_the_column_that_hugging_face_calls_an_image_is_the_one(tmp_path: Path) -> None:
    note = {"huggingface": '{"info": {"features": {"hash": {"dtype": "binary"}, "photo": {"_type": "Image"}}}}'}
    columns = {"hash": pa.array([b"h"]), "photo": pa.array([b"p"])}
    (tmp_path / "a.parquet").write_bytes(parquet(columns, metadata=note))
    assert list(contents(str(tmp_path)).values()) == [b"p"]
    (tmp_path / "b.parquet").write_bytes(parquet({"n": pa.array([1])}))
    message = f"{tmp_path}/b.parquet has no column of pictures \\(its columns are n\\); name one by --image-column"
    with pytest.raises(ConfigError, match=message):
        contents(str(tmp_path / "b.parquet"))


def test_a_table_of_no_pictures_beside_others_is_one_row(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(parquet({"n": pa.array([1])}))
    (tmp_path / "b.png").write_bytes(b"b")
    found = contents(str(tmp_path))
    assert found.pop("b.png") == b"b"
    assert str(found.pop("a.parquet/")).startswith(f"{tmp_path}/a.parquet has no column of pictures")
    assert not found


def test_a_table_of_no_pictures_is_one_row_beside_others_of_which_a_column_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(parquet({"caption": pa.array(["text"])}))
    (tmp_path / "b.parquet").write_bytes(parquet({"a": pa.array([b"1"]), "b": pa.array([b"2"])}))
    found = contents(str(tmp_path), image_column="b")
    assert "has no column 'b', nor any of pictures; its columns are caption" in str(found.pop("a.parquet/"))
    assert list(found.values()) == [b"2"]
    with pytest.raises(ConfigError, match="has no column 'b'"):
        contents(str(tmp_path / "a.parquet"), image_column="b")


def test_a_file_that_is_no_parquet_is_one_row(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"not at all")
    ((key, reason),) = contents(str(tmp_path)).items()
    assert key == "a.parquet/"
    assert str(reason).startswith(f"{tmp_path}/a.parquet: cannot be read: ")


# URLs -----------------------------------------------------------------------------------------------------------------------


def test_a_text_file_lists_urls_and_paths_beside_it(store_url: str, tmp_path: Path) -> None:
    store = Store(store_url)
    (tmp_path / "local.png").write_bytes(b"local")
    store.write("in/a b.png", b"beside")
    lines = f"in/a b.png\r\n\n{tmp_path.as_uri()}/local.png\n{store_url}/in/a b.png\ngone.png"
    store.write("urls.txt", b"\xef\xbb\xbf" + lines.encode())
    found = contents(f"{store_url}/urls.txt")
    assert list(found) == [f"urls.txt/{row:09d}" for row in (0, 2, 3, 4)]
    assert list(found.values())[:3] == [b"beside", b"local", b"beside"]
    assert "gone.png: no such file" in str(found["urls.txt/000000004"])
    assert list(contents(store_url)) == ["in/a b.png", "urls.txt"]  # in a folder it is a file like any other


def test_one_bad_line_of_a_list_is_one_row(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"a")
    path = os.fsencode(tmp_path) + b"/latin\xe9.png"
    Path(os.fsdecode(path)).write_bytes(b"not UTF-8")
    lines = b"htps://host/typo.jpg\n" + path + b"\nlatin\xe9.png\n" + f"FILE://{tmp_path}/a.png\na.png\n".encode()
    (tmp_path / "urls.txt").write_bytes(lines)
    found = list(contents(str(tmp_path / "urls.txt")).values())
    assert str(found[0]) == "htps://host/typo.jpg: Protocol not known: htps; use a path, s3://, gs://, az:// or https://"
    assert found[1:] == [b"not UTF-8", b"not UTF-8", b"a", b"a"]


@pytest.mark.parametrize("name", ["list.csv", "notes.json"])
def test_a_file_that_is_named_is_a_picture_or_a_list(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"url\na.png\n")
    with pytest.raises(ConfigError, match=r"is no picture and no list of them; lists are \.txt"):
        contents(str(tmp_path / name))
    (tmp_path / "folder.csv").mkdir()
    assert contents(str(tmp_path / "folder.csv")) == {}


def test_a_change_behind_a_url_is_noticed_but_in_the_web(store_url: str) -> None:
    store = Store(store_url)
    store.write("a.png", b"one")
    store.write("urls.txt", b"a.png\ngone.png\nhttp://127.0.0.1:9/a.png\n")
    first = list(open_source(f"{store_url}/urls.txt").items())
    assert [(item.size_bytes, bool(item.version)) for item in first] == [(3, True), (0, False), (0, False)]
    store.write("a.png", b"other")
    assert [item.version for item in open_source(f"{store_url}/urls.txt").items()] != [item.version for item in first]


def test_a_column_of_urls(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"1")
    values = pa.array(["a.png", None, " ", "a.png"])
    (tmp_path / "list.parquet").write_bytes(parquet({"caption": values, "image_url": values}))
    for options in ({}, {"url_column": "caption"}):
        found = list(contents(str(tmp_path / "list.parquet"), **options).values())
        assert found == [
            b"1",
            f"{tmp_path}/list.parquet: row 1 holds no URL",
            f"{tmp_path}/list.parquet: row 2 holds no URL",
            b"1",
        ]


def test_a_server_that_is_gone_costs_one_row(tmp_path: Path) -> None:
    (tmp_path / "u.txt").write_text("http://127.0.0.1:9/a.png\n")
    source = open_source(str(tmp_path / "u.txt"))
    (item,) = source.items()
    with pytest.raises(MediaError, match=r"http://127\.0\.0\.1:9/a\.png: cannot be read"):
        source.read(item)
