"""What is done is remembered once, and a run is not mixed with another."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.ledger import Ledger, first_difference
from pipeline.storage import Store


@pytest.fixture
def ledger(store_url: str) -> Ledger:
    return Ledger(Store(store_url))


def test_the_first_commit_of_a_unit_stands(ledger: Ledger) -> None:
    assert ledger.commit("u1", {"key": "out/a"})
    assert not ledger.commit("u1", {"key": "out/b"})
    assert ledger.commit("u1", {"key": "out/a"}), "the same record again is our own request, repeated"
    assert ledger.record("u1") == {"key": "out/a"}
    assert ledger.record("u2") is None
    assert pickle.loads(pickle.dumps(ledger)).committed() == {"u1": {"key": "out/a"}}


def test_one_of_sixteen_attempts_commits(ledger: Ledger) -> None:
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda n: ledger.commit("u1", {"attempt": n}), range(16)))
    assert sum(won) == 1
    assert ledger.record("u1") == {"attempt": won.index(True)}


def test_all_records_are_read_back_by_id(ledger: Ledger) -> None:
    for number in range(30):
        ledger.commit(f"u{number:02}", {"number": number})
    ledger.quarantine("bad", ["first", "second"])
    assert ledger.committed() == {f"u{n:02}": {"number": n} for n in range(30)}
    assert ledger.quarantined() == {"bad": ["first", "second"]}
    ledger.clear_quarantine()
    assert ledger.quarantined() == {}
    assert len(ledger.committed()) == 30


def test_the_same_run_resumes_and_another_is_refused(ledger: Ledger) -> None:
    manifest = {"model": "nearest-x2", "encoder": {"codec": "libx264", "crf": 16}, "source": ["a", 1]}
    assert ledger.begin(manifest)
    assert not ledger.begin({**manifest, "source": ("a", 1)})
    other = {**manifest, "encoder": {"codec": "libx264", "crf": 18}}
    with pytest.raises(ConfigError, match=r"holds another run: encoder.crf was 16 and is now 18; use --fresh to discard it"):
        ledger.begin(other)
    ledger.commit("u1", {})
    ledger.discard()
    assert list(ledger.store.list()) == []
    assert ledger.begin(other)


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ({"a": 1}, {"a": 1}, None),
        ({"a": 1}, {"a": 1, "b": 2}, ("b", None, 2)),
        ({"b": {"c": [1]}}, {"b": {"c": [2]}}, ("b.c", [1], [2])),
        ({"z": 1, "a": 1}, {"z": 2, "a": 2}, ("a", 1, 2)),
        (1, 2, ("the manifest", 1, 2)),
    ],
)
def test_the_first_difference_is_named(old: object, new: object, found: object) -> None:
    assert first_difference(old, new) == found


def test_a_commit_can_be_taken_back(tmp_path: Path) -> None:
    ledger = Ledger(Store(str(tmp_path)))
    ledger.commit("a", {"key": "damaged"})
    ledger.forget("a")
    assert ledger.record("a") is None
    assert ledger.commit("a", {"key": "sound"})
