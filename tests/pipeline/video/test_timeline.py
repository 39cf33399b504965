"""Exact frame times from what decoders give."""

from __future__ import annotations

import contextlib
from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import MediaError
from pipeline.video.timeline import Timeline, TimelineBuilder, exact_times


@given(st.lists(st.one_of(st.none(), st.integers(-1000, 100_000)), min_size=1, max_size=200), st.booleans())
def test_times_always_rise_or_the_clock_is_refused(pts, trust) -> None:
    with contextlib.suppress(MediaError):  # a clock that jumps
        times, _, _ = exact_times(pts, Fraction(40), trust)
        _assert_rising(times, pts)


def _assert_rising(times, pts) -> None:
    assert len(times) == len(pts)
    assert (np.diff(times) > 0).all()


@given(st.lists(st.integers(-1000, 100_000), min_size=1, max_size=200, unique=True).map(sorted))
def test_rising_times_are_kept_as_they_are(pts) -> None:
    times, guesses, seekable = exact_times(pts, Fraction(40), trust_pts=True)
    assert times.tolist() == pts
    assert not guesses
    assert seekable


def test_one_time_that_stands_still_moves_up_by_a_tick() -> None:
    pts = [*range(0, 4000, 40)]
    pts[7] = pts[6]
    times, guesses, seekable = exact_times(pts, Fraction(40), trust_pts=True)
    assert times[7] == pts[6] + 1
    assert "1 frame times did not rise" in guesses[0]
    assert not seekable


def a_builder(pts: list[int]) -> TimelineBuilder:
    builder = TimelineBuilder()
    for value in pts:
        builder.add(value, 40, value, key=value == 0)
    return builder


def test_a_frame_that_could_not_be_decoded_is_repeated_at_its_time() -> None:
    builder = a_builder([0, 40, 120, 160])
    builder.add_missing(80)
    timeline, _ = builder.build(Fraction(40), trust_pts=True)
    assert timeline.pts.tolist() == [0, 40, 80, 120, 160]
    assert timeline.repeated.tolist() == [False, False, True, False, False]
    assert timeline.checksum[2] == timeline.checksum[1]


def test_where_times_are_counted_a_missing_frame_goes_to_its_place() -> None:
    builder = TimelineBuilder()
    for number in range(10):
        if number == 4:
            builder.add_missing(None)
        builder.add(None, 0, number, key=number == 0)
    timeline, _ = builder.build(Fraction(1), trust_pts=True)
    assert timeline.pts.tolist() == list(range(11))
    assert timeline.repeated.nonzero()[0].tolist() == [4]
    assert timeline.checksum[4] == timeline.checksum[3] == 3


def test_the_last_frame_keeps_its_stated_duration() -> None:
    builder = a_builder([0, 40, 80])
    builder.duration[-1] = 75
    timeline, _ = builder.build(Fraction(40), trust_pts=True)
    assert timeline.duration.tolist() == [40, 40, 75]


def test_a_timeline_survives_its_file(tmp_path) -> None:
    timeline, _ = a_builder([0, 40, 80]).build(Fraction(40), trust_pts=True)
    timeline.write(str(tmp_path / "t.parquet"))
    again = Timeline.read(str(tmp_path / "t.parquet"))
    for name in ("pts", "duration", "checksum", "key", "repeated"):
        assert np.array_equal(getattr(again, name), getattr(timeline, name))
    assert again.seekable is timeline.seekable
