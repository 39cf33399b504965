"""Sources are told from their later versions, and read over whatever server they lie on."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.dataset.reading import read_range
from pipeline.errors import ConfigError, MediaError
from pipeline.inputs import identify, open_input
from pipeline.storage import Store
from tests.s3 import S3Server

pytestmark = pytest.mark.usefixtures("short_waits")


def test_a_source_is_told_from_its_later_versions(store: Store) -> None:
    store.write("in.mp4", b"one")
    first = identify(f"{store.url}/in.mp4")
    assert first == identify(f"{store.url}/in.mp4")
    assert (first.size_bytes, bool(first.version)) == (3, True)
    store.write("in.mp4", b"two")
    assert identify(f"{store.url}/in.mp4") != first


def test_a_source_that_cannot_be_used_is_one_line(store: Store) -> None:
    store.write("folder/empty.mp4", b"")
    for name, message in (("nothing.mp4", "no such file"), ("folder", "not a file"), ("folder/empty.mp4", "the file is empty")):
        with pytest.raises(MediaError, match=message):
            identify(f"{store.url}/{name}")


def test_a_pipe_is_no_source(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MediaError, match="not a regular file"):
        identify(str(tmp_path / "pipe"))


def test_a_refused_source_is_a_media_error(s3_url: str, s3: S3Server) -> None:
    Store(s3_url).write("in.mp4", b"x")
    s3.rule = lambda method, path: 403
    with pytest.raises(MediaError, match="permission denied"):
        identify(f"{s3_url}/in.mp4")


def test_a_protocol_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: str, **options: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(ConfigError, match=r"pip install 'swinir-pipeline\[s3\]'"):
        identify("s3://bucket/in.mp4")


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(ConfigError, match="Protocol not known: nope"):
        identify("nope://bucket/in.mp4")


def test_a_remote_input_is_seekable_and_reads_few_large_blocks(s3_url: str, s3: S3Server) -> None:
    data = random.Random(2).randbytes(9 * 2**20)
    Store(s3_url).write("in.mp4", data)
    s3.requests.clear()
    with open_input(f"{s3_url}/in.mp4") as file:
        assert not isinstance(file, str)
        for start in (0, len(data) - 1000, 40, 5 * 2**20, 80, 5 * 2**20 + 7, len(data) - 500):
            file.seek(start)
            assert file.read(100) == data[start : start + 100]
            assert file.tell() == start + 100
    assert sum(method == "GET" for method, _, _ in s3.requests) <= 4


def test_reads_go_on_through_failing_requests(s3_url: str, s3: S3Server) -> None:
    data = random.Random(3).randbytes(2**20)
    Store(s3_url).write("in.mp4", data)
    rng = random.Random(4)
    s3.rule = lambda method, path: 503 if rng.random() < 0.5 else None
    with open_input(f"{s3_url}/in.mp4") as file:
        assert not isinstance(file, str)
        assert file.read() == data


def test_pyav_reads_a_remote_file_with_its_index_at_the_end(s3_url: str, s3: S3Server, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "in.mp4"), "w") as out:
        stream = out.add_stream("mpeg4", rate=25, width=64, height=48, pix_fmt="yuv420p")
        for number in range(60):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 4 * number, np.uint8), "rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    Store(s3_url).upload(tmp_path / "in.mp4", "in.mp4")
    s3.requests.clear()
    with open_input(f"{s3_url}/in.mp4") as file, av.open(file) as source:
        assert sum(1 for _ in source.decode(video=0)) == 60
    s3.rule = lambda method, path: 403 if method == "GET" else None
    with open_input(f"{s3_url}/in.mp4") as file, pytest.raises(MediaError, match="cannot be read"):
        av.open(file)


def test_a_local_input_is_its_path(tmp_path: Path) -> None:
    with open_input(str(tmp_path / "in.mp4")) as file:
        assert file == str(tmp_path / "in.mp4")


def test_a_missing_input_is_one_line(s3_url: str) -> None:
    with pytest.raises(MediaError, match="no such file"), open_input(f"{s3_url}/nothing.mp4"):
        pass


class _Plain(SimpleHTTPRequestHandler):
    """Serves files whole, like python -m http.server: no ranges."""

    def log_message(self, *args: object) -> None: ...


class _Ranged(_Plain):
    def do_GET(self) -> None:
        data = Path(self.translate_path(self.path)).read_bytes()
        wanted = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")
        start, stop = int(wanted[0]), int(wanted[1] or len(data) - 1) + 1
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data[start:stop])))
        self.end_headers()
        self.wfile.write(data[start:stop])


@pytest.fixture
def http_url(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    (tmp_path / "in.mp4").write_bytes(bytes(range(256)) * 40_000)
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: request.param(*a, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/in.mp4"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("http_url", [_Ranged], indirect=True)
def test_https_sources_are_read_by_range(http_url: str) -> None:
    assert identify(http_url).size_bytes == 256 * 40_000
    with open_input(http_url) as file:
        assert not isinstance(file, str)
        file.seek(-256, 2)
        assert file.read() == bytes(range(256))


@pytest.mark.parametrize("http_url", [_Plain], indirect=True)
def test_a_server_without_ranges_is_refused(http_url: str) -> None:
    with open_input(http_url) as file:
        assert not isinstance(file, str)
        file.seek(-256, 2)
        with pytest.raises(MediaError, match="download it first"):
            file.read()
    with pytest.raises(MediaError, match="download it first"):
        read_range(http_url, 512, 512)
    with pytest.raises(MediaError, match="no such file"):
        identify(http_url.replace("in.mp4", "nothing.mp4"))
