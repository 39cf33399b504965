"""Jobs whose source, destination and intermediate files are in an object store, or behind http."""

from __future__ import annotations

import http.server
import itertools
import threading
from functools import partial
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, MediaError
from pipeline.storage import Store
from tests.media import numbers, payloads, times, write_video


def test_from_bucket_to_bucket_nothing_is_lost_and_nothing_is_left(tmp_path: Path, job, s3_url: str) -> None:
    source = write_video(tmp_path / "in.mp4", 60, options={"g": "12", "bf": "2"}, with_audio=True)
    bucket = Store(s3_url)
    bucket.upload(source, "in.mp4")

    report = job(f"{s3_url}/in.mp4", f"{s3_url}/out.mp4")

    bucket.download("out.mp4", tmp_path / "out.mp4")
    assert report["segments"] > 1
    assert numbers(tmp_path / "out.mp4", scale=2) == list(range(60))
    assert times(tmp_path / "out.mp4") == times(source)
    assert payloads(tmp_path / "out.mp4", "audio") == payloads(source, "audio")
    assert sorted(bucket.list()) == ["in.mp4", "out.mp4", "out.mp4.report.json"]
    assert job(f"{s3_url}/in.mp4", f"{s3_url}/out.mp4")["frames_processed"] == 0


def test_a_store_that_refuses_now_and_then_loses_nothing(tmp_path: Path, job, s3_url: str, s3) -> None:
    source = write_video(tmp_path / "in.mp4", 60, options={"g": "12"})
    numbered = itertools.count()
    s3.rule = lambda method, path: 503 if next(numbered) % 3 == 2 else None
    job(source, f"{s3_url}/out.mkv")
    s3.rule = None
    Store(s3_url).download("out.mkv", tmp_path / "out.mkv")
    assert numbers(tmp_path / "out.mkv", scale=2) == list(range(60))


def test_what_is_not_in_the_bucket_is_said_in_one_line(job, s3_url: str) -> None:
    with pytest.raises(MediaError, match=r"in\.mp4") as caught:
        job(f"{s3_url}/in.mp4", f"{s3_url}/out.mp4")
    assert "\n" not in str(caught.value)
    with pytest.raises((ConfigError, MediaError)):
        job("s3://no-such-bucket-here/in.mp4", f"{s3_url}/out.mp4")


def test_a_bucket_that_is_not_there_is_named_before_any_work(tmp_path: Path, job, s3_url: str) -> None:
    source = write_video(tmp_path / "in.mp4", 2)
    with pytest.raises(ConfigError, match="there is no such bucket; create it first"):
        job(source, "s3://none-of-this-name/out.mp4")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_a_source_behind_http(tmp_path: Path, job) -> None:
    write_video(tmp_path / "in.mp4", 30)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        job(f"http://127.0.0.1:{server.server_port}/in.mp4", tmp_path / "out.mkv")
    finally:
        server.shutdown()
        server.server_close()
    assert numbers(tmp_path / "out.mkv", scale=2) == list(range(30))


class Broken(Quiet):
    def do_HEAD(self) -> None:
        self.send_error(int(self.path.partition("/")[2].partition("/")[0]))

    def do_GET(self) -> None:
        self.do_HEAD()


def test_a_server_that_refuses_or_is_not_there_is_not_taken_for_a_missing_file(tmp_path: Path, job) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Broken)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        for status, says in ((404, "no such file"), (410, "no such file"), (400, "status 400")):
            with pytest.raises(MediaError, match=says):
                job(f"{url}/{status}/in.mp4", tmp_path / "out.mkv")
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(MediaError, match=r"in\.mp4: cannot be read: its server cannot be reached \(.*\)$"):
        job(f"{url}/in.mp4", tmp_path / "out.mkv")
    assert not list(tmp_path.iterdir())
