"""One file from a server into a folder, whole and unaltered or not at all: resumed where it was cut, checked, under a lock."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.client
import json
import os
import re
import string
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import filelock

from swinir.checkpoint import WeightsError

ATTEMPTS = 3  # in a row that bring nothing new
TIMEOUT_S = 30.0
RETRY_S = 0.25
LOCK_TIMEOUT_S = 1800.0
CHUNK = 1 << 16  # what is lost, at most, where a connection breaks
OFFLINE = ("SWINIR_OFFLINE", "HF_HUB_OFFLINE")
MIRROR = "SWINIR_MIRROR"


@dataclasses.dataclass(frozen=True, slots=True)
class Remote:
    """A file on a server, and what is known of it: None where nobody recorded it. ``page`` is where a person finds it."""

    url: str | None
    size_bytes: int | None = None
    sha256: str | None = None
    page: str | None = None


def mirrored(remote: Remote, file: str) -> Remote:
    """``remote`` as ``file`` in the folder that SWINIR_MIRROR names, where it names one. Raises WeightsError."""
    folder = os.environ.get(MIRROR)
    if not folder:
        return remote
    if urlsplit(folder).scheme not in ("http", "https"):
        raise WeightsError(f"{MIRROR} must be an http(s) URL of a folder, got {folder!r}")
    return dataclasses.replace(remote, url=f"{folder.rstrip('/')}/{quote(file)}")


def offline() -> str:
    """The variable that forbids the network, as Hugging Face reads its own; empty where none does."""
    return next((name for name in OFFLINE if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")), "")


def fetch(remote: Remote, path: Path, what: str) -> Path:
    """Make sure ``path`` holds the remote file, whole and unaltered; it appears under its name only when it does.

    What a broken connection left lies beside it as ``.part``, and the next attempt, of any process, asks for the rest.
    Where size and digest were never published, those of the first download are recorded beside the file and held to
    afterwards. Safe against other processes; a cache that is complete may be read-only. Proxies are those of the environment.
    Raises WeightsError.
    """
    try:
        if not path.exists():
            _refuse_unreachable(remote, path, what)
            path.parent.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(f"{path}.lock", timeout=LOCK_TIMEOUT_S):
                if not path.exists():
                    _download(remote, path, what)
    except filelock.Timeout as error:
        raise WeightsError(f"another process holds {path}.lock; wait for it, or delete the lock if it is gone") from error
    except OSError as error:
        raise WeightsError(f"cannot write {path} ({error}); set SWINIR_CACHE to a folder that can be written") from error
    if problem := _difference(path, _recorded(remote, path)):
        raise WeightsError(f"{path} is not the file that {what} needs ({problem}); delete it and run again")
    return path


def _refuse_unreachable(remote: Remote, path: Path, what: str) -> None:
    source = remote.url or remote.page
    if variable := offline():
        raise WeightsError(f"{path.name}, the weights of {what}, is not here and {variable} is set: put {source} at {path}")
    if remote.url is None:
        raise WeightsError(f"{path.name}, the weights of {what}, can be had by hand only: from {source}; put it at {path}")


def _download(remote: Remote, path: Path, what: str) -> None:
    part = Part(path.with_name(path.name + ".part"))
    expected = _recorded(remote, path)  # of an earlier download too, whose file is gone
    _receive_patiently(remote, part, path, what)
    try:
        if problem := _no_weights(part.path) or _difference(part.path, expected) or _cut_archive(part.path):
            other = "" if expected == remote else f", or delete {_record_path(path)} to trust what is there now"
            raise WeightsError(
                f"{remote.url} did not give the weights of {what}: {problem}; put the right file at {path}{other}"
            )
        if expected.sha256 is None:
            seen = {"url": remote.url, "size": part.path.stat().st_size, "sha256": file_sha256(part.path)}
            beside = path.with_name(path.name + ".json.part")  # a record that a full disk cut short would block the file
            beside.write_text(json.dumps(seen))
            os.replace(beside, _record_path(path))
        os.replace(part.path, path)
    finally:
        part.drop()


def _receive_patiently(remote: Remote, part: Part, path: Path, what: str) -> None:
    attempt, most = 1, 0
    while True:
        try:
            part.receive(str(remote.url))
            return
        except (OSError, http.client.HTTPException) as error:
            refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if isinstance(error, urllib.error.HTTPError):
                error.close()  # it is the response, with its socket
            if (size := part.size()) > most:
                attempt, most = 1, size
            if refused or attempt == ATTEMPTS:
                reason = f"{path.name}, the weights of {what}, cannot be downloaded ({error})"
                raise WeightsError(f"{reason}: fetch {remote.url} elsewhere and put it at {path}") from error
            time.sleep(RETRY_S * 2**attempt)
            attempt += 1


class Part:
    """The bytes of a file that arrived so far, and the version of it that they are of.

    Resuming wants a validator (RFC 9110, 8.8): a strong entity tag or a date, without which nobody could tell whether the
    rest is that of the same file. Where the server gave none, the file is fetched from its start again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._version = path.with_name(path.name + ".json")

    def size(self) -> int:
        """Bytes on the disk."""
        return self.path.stat().st_size if self.path.exists() else 0

    def drop(self) -> None:
        """Forget what arrived."""
        self.path.unlink(missing_ok=True)
        self._version.unlink(missing_ok=True)

    def receive(self, url: str) -> None:
        """The body of ``url``, or what is missing of it. Raises OSError or HTTPException where it is cut short."""
        version = self._known_version(url)
        held = self.size() if version else 0
        headers = {"Range": f"bytes={held}-", "If-Range": version["validator"]} if held else {}
        try:
            # An opener of our own: urlopen's, once made, goes on with the proxies that there were then.
            request = urllib.request.Request(quote(url, safe=string.punctuation), headers=headers)  # what is quoted stays so
            response = urllib.request.build_opener().open(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise
            error.close()
            if error.headers.get("Content-Range") == f"bytes */{held}":  # all of it was here already
                return
            self.drop()
            raise ConnectionError(f"the server has not the {held} bytes that arrived before") from error
        with contextlib.closing(response):
            if response.status == http.HTTPStatus.PARTIAL_CONTENT:
                if not held or not _continues(response.headers, held, version):
                    self.drop()
                    raise ConnectionError("the server went on with another file, or at another place")
                self._append(response, "ab", version["size"])
                return
            self.drop()
            size = response.headers.get("Content-Length")
            announced = int(size) if size is not None and size.isdecimal() else None
            if validator := _validator(response.headers):
                self._version.write_text(json.dumps({"url": url, "validator": validator, "size": announced}))
            self._append(response, "wb", announced)

    def _append(self, response: http.client.HTTPResponse, mode: str, size: int | None) -> None:
        with self.path.open(mode) as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
        if size not in (None, self.size()):  # read(n) does not notice a connection that ends early
            raise ConnectionError(f"{self.size()} of {size} bytes arrived")

    def _known_version(self, url: str) -> dict[str, Any]:
        """What was noted of the part, empty where nothing can be resumed: no note, none that is whole, or another URL."""
        try:
            noted: Any = json.loads(self._version.read_text())
        except (OSError, ValueError):
            return {}
        whole = isinstance(noted, dict) and noted.keys() == {"url", "validator", "size"}
        return noted if whole and noted["url"] == url else {}


def _validator(headers: http.client.HTTPMessage) -> str | None:
    """What an If-Range may hold: an entity tag that is not weak, or the date of the last change."""
    tag = headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")


def _continues(headers: http.client.HTTPMessage, held: int, version: dict[str, Any]) -> bool:
    """Whether a partial answer begins where we stand, in the file we hold; servers exist that do not mind If-Range."""
    place = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range") or "")
    if not place or int(place[1]) != held:
        return False
    if place[2] != "*" and version["size"] not in (None, int(place[2])):
        return False
    return _validator(headers) in (None, version["validator"])


def _no_weights(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        return "the file is empty"
    if head.lstrip()[:1] == b"<":
        return "it is a web page"
    return ""


def _cut_archive(path: Path) -> str:
    """Checkpoints are zip archives, whose directory is at their end: all there is to see of a file that nobody recorded."""
    with path.open("rb") as file:
        archive = file.read(2) == b"PK"
    return "the file is cut short" if archive and not zipfile.is_zipfile(path) else ""


def _difference(path: Path, expected: Remote) -> str:
    """How the file differs from what is known of it, in words; empty where it does not."""
    size = path.stat().st_size
    if expected.size_bytes not in (None, size):
        return f"{size} bytes instead of {expected.size_bytes}"
    if expected.sha256 is not None and (sha := file_sha256(path)) != expected.sha256:
        return f"sha256 {sha} instead of {expected.sha256}"
    return ""


def _record_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _recorded(remote: Remote, path: Path) -> Remote:
    """What is known of a cached file: what was published, or what was seen when it was fetched. Raises WeightsError."""
    if remote.sha256 is not None or not _record_path(path).exists():
        return remote
    try:
        record: dict[str, Any] = json.loads(_record_path(path).read_text())
        return Remote(remote.url, int(record["size"]), str(record["sha256"]))
    except (OSError, ValueError, LookupError, TypeError) as error:  # taken for none, it would let any file in
        raise WeightsError(
            f"{_record_path(path)}, which {path.name} is held to, cannot be read or is damaged; put the right one there, "
            "or delete it to trust what is there now"
        ) from error


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
