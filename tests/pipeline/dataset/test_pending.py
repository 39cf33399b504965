"""Pictures that go through the model together, and those that are equal."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.dataset.index import Row
from pipeline.dataset.pending import WINDOW_PICTURES, WINDOW_SAMPLES, Job, Results, windows
from pipeline.dataset.picture import Metadata, Picture

ROW = Row(key="a.png", shard="list", row=0, model="nearest-x2", source_sha256="abc")


def job(num_samples: int) -> Job:
    """Of a grey picture that becomes that large."""
    return Job(ROW, Picture(np.zeros((1, 1, 1), np.uint8), "PNG", Metadata()), size=(num_samples, 1))


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ([], [0]),
        ([job(WINDOW_SAMPLES // 4)] * 10, [4, 4, 2]),
        ([job(1)] * (WINDOW_PICTURES + 1), [WINDOW_PICTURES, 1]),
        ([Job(ROW, source=b"by itself"), job(1)], [1, 1]),
    ],
)
def test_f4_a_window_is_bounded_in_pictures_and_in_what_they_become(jobs: list[Job], expected: list[int]) -> None:
    found = list(windows(iter(jobs)))
    assert [len(window) for window in found] == expected
    assert [id(job) for job in itertools.chain(*found)] == [id(job) for job in jobs]


def test_a_copy_takes_the_result_of_the_first_and_keeps_its_own_place(tmp_path: Path) -> None:
    results = Results(tmp_path)
    done = replace(ROW, status="ok", output_sha256="def")
    assert results.complete(Job(done, data=b"result")) == (done, b"result")
    row, data = results.complete(Job(replace(ROW, key="b.png", row=1)))
    assert row == replace(done, key="b.png", row=1)
    assert isinstance(data, Path)
    assert data.read_bytes() == b"result"
