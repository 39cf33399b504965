"""A file arrives whole and unaltered or not at all, whatever the server does; a broken connection costs what is missing."""

import errno
import hashlib
import http.server
import io
import re
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import SMALL, network

from swinir import download
from swinir.checkpoint import WeightsError
from swinir.download import Remote, fetch
from swinir.model import SwinIRConfig
from swinir.presets import PRESETS, Preset, PublishedFile
from swinir.weights import load_checkpoint, locate, resolve

BODY = np.random.default_rng(0).bytes(300_000)
OTHER = np.random.default_rng(1).bytes(300_000)
HTML = b"<!DOCTYPE html><html><body>404: no such release</body></html>"


class Server:
    """A real HTTP server of one file, which honours Range and If-Range; the first answers are its ``faults``."""

    def __init__(self) -> None:
        self.body, self.validators = BODY, {"ETag": '"1"'}
        self.faults: list[str] = []
        self.requests: list[tuple[str, str | None]] = []  # path, Range
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                wanted, held_to = self.headers["Range"], self.headers["If-Range"]
                server.requests.append((self.path, wanted))
                server.answer(self, server.faults.pop(0) if server.faults else "", wanted, held_to)

            def log_message(self, *args):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.root = f"http://127.0.0.1:{self._server.server_port}"
        self.url = f"{self.root}/tiny.pth"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, handler, fault: str, wanted: str | None, held_to: str | None) -> None:
        if fault == "drop":
            handler.close_connection = True
            return
        if fault == "redirect" or handler.path.startswith("/moved/"):
            send(handler, 302, b"", {"Location": self.url})
            return
        if fault == "page":
            send(handler, 200, HTML)
            return
        if fault.isdecimal():
            send(handler, int(fault), HTML)
            return
        known = held_to is None or held_to in self.validators.values() or fault == "ignore if-range"
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and known and fault != "ignore range" else 0
        if start >= len(self.body):
            send(handler, 416, b"", {"Content-Range": f"bytes */{len(self.body)}"})
            return
        place = start + 10 if fault == "another place" else start
        span = {"Content-Range": f"bytes {place}-{len(self.body) - 1}/{len(self.body)}"} if start else {}
        part = self.body[start:]
        announced = len(part) + {"promise more": 1000, "promise less": -1000}.get(fault, 0)
        sent = part[: len(part) // 2] if fault == "cut" else part
        send(handler, 206 if start else 200, sent, {**self.validators, **span, "Content-Length": str(announced)})

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def ranges(self) -> list[str | None]:
        return [wanted for _, wanted in self.requests]


def send(handler, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)
    handler.close_connection = True


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "RETRY_S", 0.001)
    for name in (*download.OFFLINE, download.MIRROR, "http_proxy", "HTTP_PROXY", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    running = Server()
    yield running
    running.close()


@pytest.fixture(scope="module")
def packed():
    """The bytes of a checkpoint of the small network."""
    file = io.BytesIO()
    torch.save({"params": network().state_dict()}, file)
    return file.getvalue()


def known(server: Server, content: bytes = BODY) -> Remote:
    return Remote(server.url, len(content), hashlib.sha256(content).hexdigest())


def published(server: Server, content: bytes) -> Preset:
    file = PublishedFile(
        file="tiny.pth", url=server.url, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), licence="-"
    )
    return Preset(name="tiny-x2", task="test", scale=2, config=SwinIRConfig(**SMALL), published=file)


def refusal(server: Server, path: Path, says: str, remote: Remote | None = None) -> str:
    with pytest.raises(WeightsError, match=says) as caught:
        fetch(remote or known(server), path, "tiny-x2")
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert not path.exists()
    return str(caught.value)


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


def test_a_file_is_fetched_once_and_used_from_then_on(server, tmp_path):
    path = tmp_path / "tiny.pth"
    for _ in range(2):
        assert fetch(known(server), path, "tiny-x2").read_bytes() == BODY
    assert server.ranges == [None]
    assert left(tmp_path) == {"tiny.pth"}


@pytest.mark.parametrize(
    "validators", [{"ETag": '"1"'}, {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}, {"ETag": 'W/"1"', "Last-Modified": "x"}]
)
def test_after_a_broken_connection_only_the_rest_is_asked_for(server, tmp_path, validators):
    server.validators, server.faults = validators, ["cut", "cut"]
    assert fetch(known(server), tmp_path / "tiny.pth", "tiny-x2").read_bytes() == BODY
    assert server.ranges == [None, "bytes=150000-", "bytes=225000-"]
    assert left(tmp_path) == {"tiny.pth"}


def test_another_process_goes_on_where_one_gave_up(server, tmp_path):
    server.faults = ["cut", "drop", "drop", "drop"]
    refusal(server, tmp_path / "tiny.pth", "cannot be downloaded")
    assert left(tmp_path) == {"tiny.pth.part", "tiny.pth.part.json"}
    server.faults, server.requests = [], []
    assert fetch(known(server), tmp_path / "tiny.pth", "tiny-x2").read_bytes() == BODY
    assert server.ranges == ["bytes=150000-"]
    assert left(tmp_path) == {"tiny.pth"}


def test_as_long_as_something_arrives_it_goes_on(server, tmp_path):
    server.faults = ["cut"] * 10
    assert fetch(known(server), tmp_path / "tiny.pth", "tiny-x2").read_bytes() == BODY
    assert len(server.requests) == 11


def test_without_a_validator_nothing_is_glued_together(server, tmp_path):
    server.validators, server.faults = {"ETag": 'W/"1"'}, ["cut"]
    assert fetch(known(server), tmp_path / "tiny.pth", "tiny-x2").read_bytes() == BODY
    assert server.ranges == [None, None]


@pytest.mark.parametrize("fault", ["", "ignore if-range"])
def test_a_file_that_changed_between_attempts_is_fetched_whole(server, tmp_path, fault):
    """Its size is the same and nobody recorded its digest, so that nothing later would notice."""
    server.faults = ["cut", "drop", "drop", "drop"]
    refusal(server, tmp_path / "tiny.pth", "cannot be downloaded", Remote(server.url))
    server.body, server.validators, server.faults = OTHER, {"ETag": '"2"'}, [fault] * 9
    assert fetch(Remote(server.url), tmp_path / "tiny.pth", "tiny-x2").read_bytes() == OTHER


def test_a_server_that_promised_more_than_it_has_is_asked_for_it_once(server, tmp_path):
    server.faults = ["promise more"]
    assert fetch(known(server), tmp_path / "tiny.pth", "tiny-x2").read_bytes() == BODY
    assert server.ranges == [None, "bytes=300000-"]


def test_less_than_promised_is_not_the_file(server, tmp_path):
    server.validators, server.faults = {}, ["promise more"] * 3
    refusal(server, tmp_path / "tiny.pth", "300000 of 301000 bytes arrived")


@pytest.mark.parametrize("fault", ["ignore range", "another place", "416", "503", "drop", "redirect"])
def test_a_server_that_cannot_resume_is_asked_again(server, tmp_path, fault):
    server.faults = ["cut", fault]
    assert fetch(known(server), tmp_path / "tiny.pth", "tiny-x2").read_bytes() == BODY
    assert server.ranges[1] == "bytes=150000-"


def test_all_that_was_missing_was_the_name(server, tmp_path):
    """Killed after the last byte: the server has nothing to add, and says so."""
    server.faults = ["cut", "drop", "drop", "drop"]
    refusal(server, tmp_path / "tiny.pth", "cannot be downloaded")
    (tmp_path / "tiny.pth.part").write_bytes(BODY)
    server.faults, server.requests = [], []
    assert fetch(known(server), tmp_path / "tiny.pth", "tiny-x2").read_bytes() == BODY
    assert server.ranges == ["bytes=300000-"]


def test_a_note_that_is_torn_or_of_another_place_resumes_nothing(server, tmp_path):
    elsewhere = '{"url": "http://elsewhere/x", "validator": "1", "size": 300000}'
    notes = ('{"url": "htt', elsewhere, "{}", "[]", f'{{"url": "{server.url}"}}')
    for number, note in enumerate(notes):
        path = tmp_path / f"{number}.pth"
        path.with_name(path.name + ".part").write_bytes(OTHER[:1000])
        path.with_name(path.name + ".part.json").write_text(note)
        assert fetch(known(server), path, "tiny-x2").read_bytes() == BODY
    assert server.ranges == [None] * len(notes)


def test_a_redirection_keeps_the_range(server, tmp_path):
    moved = Remote(f"{server.root}/moved/tiny.pth", len(BODY), hashlib.sha256(BODY).hexdigest())
    server.faults = ["redirect", "cut"]
    assert fetch(moved, tmp_path / "tiny.pth", "tiny-x2").read_bytes() == BODY
    assert server.requests[-1] == ("/tiny.pth", "bytes=150000-")


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("drop", "cannot be downloaded"),
        ("promise less", "299000 bytes instead of 300000"),
        ("404", "404"),
        ("503", "503"),
        ("page", "it is a web page"),
    ],
)
def test_what_is_not_the_file_is_never_kept(server, tmp_path, fault, says):
    server.faults = [fault] * 9
    assert server.url in refusal(server, tmp_path / "tiny.pth", says)
    assert left(tmp_path) <= {"tiny.pth.part", "tiny.pth.part.json"}


@pytest.mark.parametrize(("body", "says"), [(b"", "the file is empty"), (OTHER, "sha256"), (b"PK", "bytes instead of")])
def test_another_file_is_not_kept_nor_any_part_of_it(server, tmp_path, body, says):
    server.body = body
    if not body:
        server.answer = lambda handler, *rest: send(handler, 200, b"")
    refusal(server, tmp_path / "tiny.pth", says)
    assert left(tmp_path) == set()


def test_a_file_nobody_recorded_is_held_to_what_was_first_seen(server, tmp_path):
    path = tmp_path / "tiny.pth"
    for _ in range(2):
        fetch(Remote(server.url), path, "tiny-x2")
    path.write_bytes(BODY[:-1] + b"!")
    with pytest.raises(WeightsError, match=r"sha256 .*; delete it and run again"):
        fetch(Remote(server.url), path, "tiny-x2")


def test_what_was_first_seen_holds_though_the_file_is_gone(server, tmp_path):
    path = tmp_path / "tiny.pth"
    fetch(Remote(server.url), path, "tiny-x2")
    path.unlink()
    first, server.body = server.body, OTHER
    with pytest.raises(WeightsError, match=r"sha256 .*delete .*tiny.pth.json to trust what is there now"):
        fetch(Remote(server.url), path, "tiny-x2")
    assert not path.exists()
    server.body = first
    assert fetch(Remote(server.url), path, "tiny-x2").read_bytes() == first


@pytest.mark.parametrize("damaged", ["", "{}", "[]", "null", '{"size": 3', '{"size": "x", "sha256": "y"}'])
def test_a_record_that_is_damaged_lets_nothing_in_until_it_is_deleted(server, tmp_path, damaged):
    path = tmp_path / "tiny.pth"
    (tmp_path / "tiny.pth.json").write_text(damaged)
    line = refusal(server, path, "which tiny.pth is held to, cannot be read or is damaged", Remote(server.url))
    assert server.requests == []
    path.write_bytes(BODY)
    with pytest.raises(WeightsError, match="is held to"):
        fetch(Remote(server.url), path, "tiny-x2")
    path.unlink()
    Path(re.search(r"^(\S+), which .* delete it to trust what is there now$", line)[1]).unlink()
    assert fetch(Remote(server.url), path, "tiny-x2").read_bytes() == BODY


def test_a_record_that_cannot_be_written_whole_is_none(server, tmp_path, monkeypatch):
    def cut_short(path, text):
        path.write_bytes(text.encode()[:0])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full_disk:
        full_disk.setattr(Path, "write_text", cut_short)
        server.validators = {}  # of which nothing is written
        refusal(server, tmp_path / "tiny.pth", "cannot write", Remote(server.url))
    assert fetch(Remote(server.url), tmp_path / "tiny.pth", "tiny-x2").read_bytes() == BODY
    assert left(tmp_path) == {"tiny.pth", "tiny.pth.json"}


def test_an_archive_cut_short_is_not_what_is_held_to(server, packed, tmp_path):
    assert zipfile.is_zipfile(io.BytesIO(packed))
    server.body, server.faults = packed, ["promise less"]
    refusal(server, tmp_path / "tiny.pth", "the file is cut short", Remote(server.url))
    assert left(tmp_path) == set()


def test_a_damaged_file_in_the_cache_is_noticed(server, tmp_path):
    (tmp_path / "tiny.pth").write_bytes(BODY[:-5])
    with pytest.raises(WeightsError, match="299995 bytes instead of 300000"):
        fetch(known(server), tmp_path / "tiny.pth", "tiny-x2")


def test_many_at_once_fetch_once(server, tmp_path):
    arguments = (known(server), tmp_path / "tiny.pth", "tiny-x2")
    threads = [threading.Thread(target=fetch, args=arguments) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.ranges == [None]


def test_an_unreachable_server_says_which_file_to_put_where_and_that_works(server, tmp_path):
    server.close()
    line = refusal(server, tmp_path / "tiny.pth", r"tiny\.pth, the weights of tiny-x2, cannot be downloaded")
    where = re.search(r"fetch (\S+) elsewhere and put it at (\S+)$", line)
    assert where[1] == server.url
    Path(where[2]).write_bytes(BODY)
    assert fetch(known(server), tmp_path / "tiny.pth", "tiny-x2").read_bytes() == BODY


@pytest.mark.parametrize(("variable", "value"), [("SWINIR_OFFLINE", "1"), ("HF_HUB_OFFLINE", "true")])
def test_offline_asks_nobody_and_says_which_file_to_put_where(server, tmp_path, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    line = refusal(server, tmp_path / "tiny.pth", f"is not here and {variable} is set")
    where = re.search(r"put (\S+) at (\S+)$", line)
    assert where[1] == server.url
    Path(where[2]).write_bytes(BODY)
    assert fetch(known(server), tmp_path / "tiny.pth", "tiny-x2").read_bytes() == BODY
    assert server.requests == []


def test_offline_can_be_switched_off(server, tmp_path, monkeypatch):
    monkeypatch.setenv("SWINIR_OFFLINE", "0")
    assert fetch(known(server), tmp_path / "tiny.pth", "tiny-x2").read_bytes() == BODY


def test_a_file_for_people_alone_is_explained(tmp_path, server):
    with pytest.raises(
        WeightsError, match=r"can be had by hand only: from https://openmodeldb\S+; put it at .*2xHFA2kSwinIR-S\.pth$"
    ):
        resolve("anime-hfa2k-x2", cache=tmp_path)


def test_a_mirror_stands_in_for_every_published_place(server, packed, tmp_path, monkeypatch):
    server.body = packed
    monkeypatch.setenv("SWINIR_MIRROR", f"{server.root}/models/")
    elsewhere = published(server, packed)
    assert resolve(elsewhere, cache=tmp_path).read_bytes() == packed
    with pytest.raises(WeightsError, match="did not give the weights of anime-hfa2k-x2"):
        resolve(PRESETS["anime-hfa2k-x2"], cache=tmp_path)
    assert [path for path, _ in server.requests] == ["/models/tiny.pth", "/models/2xHFA2kSwinIR-S.pth"]


@pytest.mark.parametrize("mirror", ["/srv/models", "s3://bucket/models"])
def test_a_mirror_that_is_no_http_folder_is_refused(server, packed, tmp_path, monkeypatch, mirror):
    monkeypatch.setenv("SWINIR_MIRROR", mirror)
    with pytest.raises(WeightsError, match="SWINIR_MIRROR must be an http"):
        resolve(published(server, packed), cache=tmp_path)


def test_the_proxy_of_the_environment_is_used(server, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", server.root)
    there = Remote("http://no-such-host.invalid/tiny.pth", len(BODY), hashlib.sha256(BODY).hexdigest())
    assert fetch(there, tmp_path / "tiny.pth", "tiny-x2").read_bytes() == BODY
    assert server.requests == [("http://no-such-host.invalid/tiny.pth", None)]


def test_a_url_is_written_as_servers_read_it(server, tmp_path):
    for number, path in enumerate(("modèle v2.pth", "mod%C3%A8le.pth", "a+b.pth?q=ü&r=%26#x")):
        fetch(Remote(f"{server.root}/{path}"), tmp_path / f"{number}.pth", "tiny-x2")
    assert [path for path, _ in server.requests] == ["/mod%C3%A8le%20v2.pth", "/mod%C3%A8le.pth", "/a+b.pth?q=%C3%BC&r=%26"]


def test_a_url_the_user_names_is_fetched_and_kept(server, packed, tmp_path):
    server.body = packed
    first = locate(server.url, tmp_path)
    assert locate(server.url, tmp_path) == first
    assert first.name.endswith("-tiny.pth")
    assert server.ranges == [None]
    assert load_checkpoint("auto", server.url, tmp_path).config == SwinIRConfig(**SMALL)
