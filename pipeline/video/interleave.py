"""Packets of several streams in the order of their decode times."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import av
import av.error

from pipeline.video.probe import is_cover

LOOK_AHEAD_BYTES = 64 << 20


def in_time_order(
    packets: Iterator[av.Packet[Any]], num_streams: int, look_ahead: int = LOOK_AHEAD_BYTES
) -> Iterator[av.Packet[Any]]:
    """Packets of several streams in order of their decode times, however the source has them interleaved.

    A packet waits until each of ``num_streams`` shows its next one, as far as ``look_ahead`` bytes of packets hold it.
    """
    waiting: dict[int, deque[av.Packet[Any]]] = {}
    size = 0
    for packet in packets:
        if is_cover(packet.stream):
            yield packet
            continue
        waiting.setdefault(packet.stream_index, deque()).append(packet)
        size += packet.size
        while size > look_ahead or (len(waiting) == num_streams and all(waiting.values())):
            first = _earliest(waiting)
            size -= first.size
            yield first
    while any(waiting.values()):
        yield _earliest(waiting)


def _earliest(waiting: Mapping[int, deque[av.Packet[Any]]]) -> av.Packet[Any]:
    return min((queue for queue in waiting.values() if queue), key=lambda queue: _decode_s(queue[0])).popleft()


def merge(video: Iterator[av.Packet[Any]], others: Iterator[av.Packet[Any]]) -> Iterator[av.Packet[Any]]:
    """Both in order of their decode times, so that no stream lies far from the others in the file."""
    other = next(others, None)
    for packet in video:
        time = _decode_s(packet)
        while other is not None and _decode_s(other) <= time:
            yield other
            other = next(others, None)
        yield packet
    while other is not None:
        yield other
        other = next(others, None)


def _decode_s(packet: av.Packet[Any]) -> float:
    ticks = packet.dts if packet.dts is not None else packet.pts
    assert ticks is not None
    assert packet.time_base is not None
    return float(ticks * packet.time_base)
