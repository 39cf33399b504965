"""Exact frame times from what decoders give."""

from __future__ import annotations

import itertools
from dataclasses import fields
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import MediaError
from pipeline.video.clock import StreamClock, settle
from pipeline.video.timeline import Timeline, TimelineBuilder
from pipeline.video.times import WRAP_TICKS, exact_times, jumps_back, long_pauses, unwrap


@given(st.lists(st.one_of(st.none(), st.integers(-1000, 100_000)), min_size=1, max_size=200), st.booleans())
def test_times_always_rise(pts, trust) -> None:
    exact = exact_times(pts, Fraction(40), trust)
    assert len(exact.pts) == len(pts)
    assert (np.diff(exact.pts) > 0).all()
    assert {frame: now for frame, _, now in exact.repaired} == {
        i: now for i, (was, now) in enumerate(zip(pts, exact.pts, strict=True)) if was != now
    }


@given(st.lists(st.integers(-1000, 100_000), min_size=1, max_size=200, unique=True).map(sorted))
def test_rising_times_are_kept_as_they_are(pts) -> None:
    exact = exact_times(pts, Fraction(40), trust_pts=True)
    assert exact.pts.tolist() == pts
    assert exact.own
    assert (exact.repaired, exact.guesses) == ([], [])


def test_missing_times_lie_between_their_neighbours() -> None:
    pts = [None, 0, 40, 80, None, None, 380, 440, None]
    exact = exact_times(pts, Fraction(40), trust_pts=True)
    assert exact.pts.tolist() == [-40, 0, 40, 80, 180, 280, 380, 440, 480]
    assert exact.guesses == ["4 frames have no time; shown between their neighbours"]
    assert [frame for frame, was, _ in exact.repaired if was is None] == [0, 4, 5, 8]


def test_few_known_times_are_counted_from_the_first() -> None:
    exact = exact_times([None, 100, None, None, 900], Fraction(40), trust_pts=True)
    assert np.diff(exact.pts).tolist() == [40] * 4
    assert "missing or disordered" in exact.guesses[0]


def test_one_time_that_stands_still_moves_up_by_a_tick_and_is_listed() -> None:
    pts = [*range(0, 4000, 40)]
    pts[7] = pts[6]
    exact = exact_times(pts, Fraction(40), trust_pts=True)
    assert exact.pts[7] == pts[6] + 1
    assert "1 frame times did not rise" in exact.guesses[0]
    assert exact.repaired == [(7, pts[6], pts[6] + 1)]
    assert not exact.own


@given(st.lists(st.integers(1, 2**31), min_size=1, max_size=50), st.integers(0, WRAP_TICKS - 1))
def test_a_clock_of_33_bits_is_unwrapped(steps, first) -> None:
    times = list(itertools.accumulate(steps, initial=first))
    assert unwrap([time % WRAP_TICKS for time in times]) == times


def test_a_clock_that_is_set_back_is_seen_and_mere_disorder_is_not() -> None:
    pts: list[int | None] = [*range(0, 4000, 40), *range(0, 400, 40)]
    pts[5], pts[20], pts[21] = None, pts[21], pts[20]
    assert jumps_back(pts, Fraction(40)) == [100]
    assert jumps_back([0, 40, 120, 80, None, 160], Fraction(40)) == []


def test_a_pause_is_listed_where_it_is_far_longer_than_a_frame() -> None:
    pts = np.array([0, 40, 80, 2600, 2640, 3000])
    assert long_pauses(pts, Fraction(40), Fraction(1000)) == [(2, 2520)]
    assert long_pauses(pts * 100, Fraction(4000), Fraction(1000)) == [(2, 252_000)]


@pytest.fixture
def spliced() -> TimelineBuilder:
    """Ten frames of 40 ticks, and after a splice ten more whose clock begins at 8."""
    builder = TimelineBuilder()
    for number, pts in enumerate([*range(1000, 1400, 40), *range(8, 408, 40)]):
        builder.add(pts, 40, number, key=number in (0, 10))
    return builder


def a_clock(*packets: tuple[int, int]) -> StreamClock:
    clock = StreamClock()
    for pts, duration in packets:
        packet = av.Packet(b"x")
        packet.pts = packet.dts = pts
        packet.duration = duration
        clock.note(packet)
    return clock


def test_after_a_splice_all_streams_go_on_together_where_none_overlaps(spliced) -> None:
    sound = a_clock((0, 1000), (1000, 2000), (0, 1000), (1000, 1000))
    timeline, repairs, _ = settle(spliced, Fraction(40), Fraction(90_000), True, {1: sound}, {1})
    assert repairs.jumps == ((10, 8, 3000),)  # the sound's overlap is the greater one: 1392 would do for the picture
    assert repairs.packet_jumps == ((1, 2, 3000),)
    assert timeline.pts.tolist() == [*range(1000, 1400, 40), *range(3008, 3408, 40)]
    assert timeline.decoder_pts.tolist() == [*range(1000, 1400, 40), *range(8, 408, 40)]


def test_a_splice_that_only_one_stream_has_is_refused(spliced) -> None:
    sound = a_clock((0, 1000), (1000, 1000), (2000, 1000))
    with pytest.raises(MediaError, match="1 times in the picture and 0 times in stream 1"):
        settle(spliced, Fraction(40), Fraction(90_000), True, {1: sound}, {1})


def test_a_clock_that_jumps_back_where_none_may_is_refused(spliced) -> None:
    with pytest.raises(MediaError, match=r"jump back at frame 10, to 8 ticks; split"):
        settle(spliced, Fraction(40), Fraction(1000), True, None, set())


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


def test_known_times_stay_where_one_is_missing_and_a_frame_cannot_be_decoded() -> None:
    builder = TimelineBuilder()
    for number, pts in enumerate([0, 40, 80, None, 160, 2160, 2200, 2240]):
        builder.add(pts, 40, number, key=number == 0)
        if number == 5:
            builder.add_missing(None)
    timeline, exact = builder.build(Fraction(40), trust_pts=True)
    assert timeline.pts.tolist() == [0, 40, 80, 120, 160, 2160, 2180, 2200, 2240]
    assert timeline.repeated.nonzero()[0].tolist() == [6]
    assert exact.guesses == ["1 frames have no time; shown between their neighbours"]


def test_the_last_frame_keeps_its_stated_duration() -> None:
    builder = a_builder([0, 40, 80])
    builder.duration[-1] = 75
    timeline, _ = builder.build(Fraction(40), trust_pts=True)
    assert timeline.duration.tolist() == [40, 40, 75]


def test_a_timeline_survives_its_file(tmp_path) -> None:
    timeline, _ = a_builder([0, 40, 80]).build(Fraction(40), trust_pts=True)
    timeline.write(str(tmp_path / "t.parquet"))
    again = Timeline.read(str(tmp_path / "t.parquet"))
    for column in fields(Timeline):
        assert np.array_equal(getattr(again, column.name), getattr(timeline, column.name))


def test_a5_what_is_missing_before_the_first_frame_repeats_nothing() -> None:
    builder = TimelineBuilder()
    for pts in (80, 120, 200):
        builder.add(pts, 40, pts, key=pts == 80)
    builder.add_missing(40)
    builder.add_missing(160)
    timeline, _ = builder.build(Fraction(40), trust_pts=True)
    assert timeline.pts.tolist() == [80, 120, 160, 200]
    assert timeline.repeated.tolist() == [False, False, True, False]
