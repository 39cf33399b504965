"""Places to keep things: one S3 protocol server for all tests, and a fresh folder of each kind for each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import retry
from pipeline.storage import Store
from tests.s3 import ENVIRONMENT, S3Server, s3_server

_numbers = itertools.count()


@pytest.fixture(scope="session")
def _s3_session() -> Iterator[S3Server]:
    with pytest.MonkeyPatch.context() as patch, s3_server() as server:
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": server.url}.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture
def s3(_s3_session: S3Server) -> Iterator[S3Server]:
    """The server, without rules and with an empty log."""
    _s3_session.requests.clear()
    yield _s3_session
    _s3_session.rule = None


@pytest.fixture
def s3_url(s3: S3Server) -> str:
    """A folder in a new bucket."""
    url = f"{s3.bucket(f'bucket-{next(_numbers)}')}/a folder"
    s3.requests.clear()
    return url


@pytest.fixture(params=["local", "memory", "s3"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return str(request.getfixturevalue("s3_url"))
    return str(tmp_path / "a folder") if request.param == "local" else f"memory://test-{next(_numbers)}/a folder"


@pytest.fixture
def store(store_url: str) -> Store:
    return Store(store_url)


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many attempts at a failing request as ever, with hardly a wait between."""
    monkeypatch.setattr(retry, "DELAYS_S", (0.01,) * len(retry.DELAYS_S))
