"""Results of earlier runs, as their files of rows tell of them, however many those are."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.dataset.index import Row, write_rows
from pipeline.dataset.superseded import places_in
from pipeline.storage import Store


def test_places_come_in_the_order_of_keys_from_files_that_overlap_and_few_are_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Store(str(tmp_path / "work"))
    pieces = [range(0, 4), range(2, 6), range(6, 9), range(9, 12)]
    for number, piece in enumerate(pieces):
        path = tmp_path / str(number)
        write_rows(path, (Row(key=f"{i:02d}", row=i, status="ok", output=f"{i}.png" if i % 5 else "") for i in piece))
        work.upload(path, path.name)
    work.write("damaged", b"PAR1")

    found = places_in(work, ["3", "damaged", "1", "0", "2"])
    monkeypatch.setattr(Store, "read", lambda store, key, read=Store.read: opened.append(key) or read(store, key))
    opened: list[str] = []
    seen = [(place, list(opened)) for place in found]

    assert [key for (key, _), _ in seen] == sorted(key for (key, _), _ in seen)
    expected = {(f"{i:02d}", f"{i}.png") for piece in pieces for i in piece if i % 5}
    assert {place for place, _ in seen if place[1]} == expected
    assert next(files for (key, _), files in seen if key == "05") == ["0", "1"]
