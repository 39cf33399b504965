"""Settles the times of a video and of what goes along: a clock that wraps or jumps back is made to run on, for all alike."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from operator import itemgetter
from typing import Any

import av
import numpy as np

from pipeline.errors import MediaError
from pipeline.video.timeline import Timeline, TimelineBuilder
from pipeline.video.times import MAX_LISTED, TimeRepairs, jumps_back, long_pauses, unwrap, unwrapped

WRAPPING = ("mpegts", "mpeg")  # containers whose clock wraps, and jumps where recordings were joined
STEP_TICKS = 900  # 10 ms: less is a coder's rounding


@dataclass(slots=True)
class StreamClock:
    """One stream's packet times in file order, unwrapped, and the places where they go back.

    A jump is (number of the packet, end of what came before, start of what comes after), in ticks.
    """

    num_packets: int = 0
    last: int | None = None
    end: int = 0
    jumps: list[tuple[int, int, int]] = field(default_factory=list)

    def note(self, packet: av.Packet[Any]) -> None:
        ticks = packet.dts if packet.dts is not None else packet.pts
        if not packet.size or ticks is None:
            return
        ticks = ticks if self.last is None else unwrapped(ticks, self.last)
        if self.last is not None and self.last - ticks > STEP_TICKS:
            self.jumps.append((self.num_packets, self.end, ticks))
            self.end = ticks
        self.end = max(self.end, ticks + (packet.duration or 0))
        self.last = ticks
        self.num_packets += 1


def settle(
    builder: TimelineBuilder,
    frame_ticks: Fraction,
    second: Fraction,
    trust_pts: bool,
    others: Mapping[int, StreamClock] | None,
    audio: Collection[int],
) -> tuple[Timeline, TimeRepairs, list[str]]:
    """The frames' times as the result will have them, what was done to them, and what of them had to be guessed.

    ``frame_ticks`` is the nominal duration of a frame and ``second`` a second, in ticks of the video.
    ``others`` are the other streams' clocks where the container's may wrap and jump, and ``audio`` which of them are sound.
    Raises MediaError for a clock that jumps back and cannot be set right.
    """
    jumps, packet_jumps = list[tuple[int, int, int]](), list[tuple[int, int, int]]()
    if others is not None:
        jumps, packet_jumps = set_right(builder, frame_ticks, others, audio)
    elif trust_pts and (starts := jumps_back(builder.pts, frame_ticks)):
        was = builder.pts[starts[0]]
        raise MediaError(f"frame times jump back at frame {starts[0]}, to {was} ticks; split the source there first")
    timeline, exact = builder.build(frame_ticks, trust_pts)
    number = np.flatnonzero(~timeline.repeated)  # of each decoded frame, among those put in for damaged ones
    repairs = TimeRepairs(
        len(exact.repaired),
        tuple((int(number[i]), was, int(timeline.pts[number[i]])) for i, was, _ in exact.repaired[:MAX_LISTED]),
        tuple((int(number[frame]), was, ticks) for frame, was, ticks in jumps),
        tuple(packet_jumps),
        tuple(long_pauses(timeline.pts, frame_ticks, second)),
    )
    return timeline, repairs, exact.guesses


def jump_lines(repairs: TimeRepairs, tick: Fraction) -> list[str]:
    """Where the clock jumps back, for the list of what is damaged."""
    before = [0, *(ticks for _, _, ticks in repairs.jumps)]
    return [
        f"frame times jump back by {float((ticks - earlier) * tick):.3f} s at frame {frame}, the packet of time {was} ticks"
        for (frame, was, ticks), earlier in zip(repairs.jumps, before, strict=False)
    ]


def pause_lines(repairs: TimeRepairs, timeline: Timeline, tick: Fraction) -> list[str]:
    if not repairs.pauses:
        return []
    frame, ticks = max(repairs.pauses, key=itemgetter(1))
    at_s = float((timeline.pts[frame] - timeline.pts[0]) * tick)
    longest = f"frame {frame} at {at_s:.3f} s for {float(ticks * tick):.3f} s"
    return [f"frames shown far longer than the others: {len(repairs.pauses)}, the longest {longest}; they are kept so"]


def set_right(
    timeline: TimelineBuilder, frame_ticks: Fraction, others: Mapping[int, StreamClock], audio: Collection[int]
) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
    """Unwrap the times of a transport stream's frames, and move all that follows a jump back to go on one frame after.

    A little later where packets of another stream would overlap: each keeps its offset to the picture. Returns the jumps,
    (frame, time it had, ticks added from there on), and the same of the ``others``: (stream, number of its packet, ticks).
    Raises MediaError where a stream does not jump as often as the picture.
    """
    timeline.pts = unwrap(timeline.pts)
    starts = jumps_back(timeline.pts, frame_ticks)
    moved = {index: clock.jumps for index, clock in others.items() if clock.num_packets and (starts or index in audio)}
    for index, jumps in moved.items():
        if len(jumps) != len(starts):
            at = f"frame {starts[0]}" if starts else f"packet {jumps[0][0]} of stream {index}"
            raise MediaError(
                f"times jump back at {at}, but {len(starts)} times in the picture and {len(jumps)} times in stream {index}, "
                "so that the two cannot be kept together; split the source there first"
            )
    found, packets, total = [], [], 0
    for number, frame in enumerate(starts):
        ends = [jumps[number][1] - jumps[number][2] for jumps in moved.values()]
        start = timeline.pts[frame] or 0
        total += max([_end(timeline, starts[number - 1] if number else 0, frame, frame_ticks) - start, *ends])
        found.append((frame, start, total))
        packets += [(index, jumps[number][0], total) for index, jumps in moved.items()]
    timeline.rebase(starts, [total for _, _, total in found])
    return found, packets


def _end(timeline: TimelineBuilder, start: int, stop: int, frame_ticks: Fraction) -> int:
    """When the last of frames [start, stop) has been shown."""
    shown = zip(timeline.pts[start:stop], timeline.duration[start:stop], strict=True)
    return max(pts + (duration or round(frame_ticks)) for pts, duration in shown if pts is not None)


class SourceClock:
    """Turns the times of copied packets, in file order, into those of the result.

    ``base`` seconds are added to all; ``jumps`` are (stream, number of its packet, ticks added from there on, in all).
    """

    def __init__(self, base: Fraction, jumps: Sequence[tuple[int, int, int]], wraps: bool) -> None:
        self._base, self._wraps = base, wraps
        self._jumps: dict[int, list[tuple[int, int]]] = {}
        for stream, number, ticks in jumps:
            self._jumps.setdefault(stream, []).append((number, ticks))
        self._clocks: dict[int, StreamClock] = {}

    def apply(self, packet: av.Packet[Any]) -> None:
        """Move one packet; to be called once for every packet that has a payload and a time."""
        assert packet.time_base is not None
        shift = round(self._base / packet.time_base)
        if self._wraps:
            clock = self._clocks.setdefault(packet.stream_index, StreamClock())
            number = clock.num_packets
            clock.note(packet)
            assert clock.last is not None
            raw = packet.dts if packet.dts is not None else packet.pts
            assert raw is not None
            jumps = self._jumps.get(packet.stream_index, [])
            shift += clock.last - raw + next((ticks for at, ticks in reversed(jumps) if number >= at), 0)
        if packet.dts is not None:
            packet.dts += shift
        if packet.pts is not None:
            packet.pts += shift
            if self._wraps and packet.dts is not None:
                packet.pts = unwrapped(packet.pts, packet.dts)
