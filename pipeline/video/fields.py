"""Whole pictures out of interlaced ones, by FFmpeg's bwdif: one for each frame, or one for each of its two fields."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Literal

import av
import av.error
import numpy as np
from av.filter import Graph

from pipeline.config import DeinterlaceChoice
from pipeline.errors import MediaError
from pipeline.video.combing import Interlacing
from pipeline.video.packing import REPACKED
from pipeline.video.timeline import Timeline

Indexed = tuple[int, av.VideoFrame]

LEAST_COMBED = 3  # sampled pictures, and this part of those that move; below, a measurement may be wrong
LEAST_COMBED_PART = 0.02

ADVICE = (
    "--deinterlace bwdif makes a picture of each frame, bwdif-fields of each field, at twice the rate; "
    "progressive takes the frames as they are"
)


@dataclass(frozen=True, slots=True)
class Deinterlace:
    """What is done to frames before anything else.

    ``per_frame`` pictures, 1 or 2, come of each. ``every``: of all frames, not only of those that say that they are interlaced.
    ``parity``: which field is first; auto is as each frame says.
    """

    per_frame: int
    every: bool
    parity: Literal["auto", "tff", "bff"]


def deinterlacing(seen: Interlacing, num_frames: int, choice: DeinterlaceChoice | None, notes: list[str]) -> Deinterlace | None:
    """What to do; None for frames as they are. ``notes`` says what was found.

    Raises MediaError, with the options to choose from, where there is something to choose.
    """
    moving, flagged_moving = seen.combed + seen.whole, seen.flagged_combed + seen.flagged_whole
    unflagged_comb = seen.combed >= LEAST_COMBED and seen.combed >= LEAST_COMBED_PART * moving
    if choice is None:
        if seen.flagged and seen.flagged_whole >= LEAST_COMBED and seen.flagged_combed < LEAST_COMBED_PART * flagged_moving:
            raise MediaError(
                f"{seen.flagged} of {num_frames} frames say that they are interlaced, but of those sampled that move "
                f"{seen.flagged_whole} of {flagged_moving} are whole pictures; {ADVICE}"
            )
        if seen.flagged:
            raise MediaError(f"interlaced: {seen.flagged} of {num_frames} frames say so; {ADVICE}")
        if unflagged_comb:
            raise MediaError(
                f"interlaced, though no frame says so: {seen.combed} of {moving} sampled frames that move are combed; {ADVICE}"
            )
        if seen.combed >= LEAST_COMBED:
            notes.append(f"{seen.combed} of {moving} sampled frames that move look interlaced; all are taken as they are")
        return None
    if choice == "progressive":
        if seen.flagged or unflagged_comb:
            notes.append(f"{seen.flagged} of {num_frames} frames say that they are interlaced; all are taken as they are")
        return None
    if not seen.flagged and not seen.combed:
        notes.append("no frame is interlaced; --deinterlace has nothing to do")
        return None
    every = unflagged_comb or not seen.flagged
    if not every and seen.flagged < num_frames:
        notes.append(f"{seen.flagged} of {num_frames} frames are interlaced; the others are taken as they are")
    per_frame = 2 if choice == "bwdif-fields" else 1
    if not every:
        return Deinterlace(per_frame, every=False, parity="auto")
    bottom = 2 * seen.bottom_first > seen.combed + seen.flagged_combed
    notes.append(f"all frames are deinterlaced, {'bottom' if bottom else 'top'} field first: by what they show")
    return Deinterlace(per_frame, every=True, parity="bff" if bottom else "tff")


def pictures(timeline: Timeline, how: Deinterlace | None) -> Timeline:
    """The timeline of what comes of a video's frames; for two of each, in a time base half as long.

    The second of two is exactly in the middle between its frame and the next.
    """
    if how is None or how.per_frame == 1:
        return timeline
    index = np.repeat(np.arange(len(timeline)), 2)
    second = np.tile([False, True], len(timeline))
    columns = {column.name: getattr(timeline, column.name)[index] for column in fields(Timeline)}
    # In ticks half as long, half a duration is the whole number.
    columns["pts"] = 2 * columns["pts"] + second * columns["duration"]
    columns |= {name: columns[name] & ~second for name in ("key", "scene")}
    return Timeline(**columns)


def frames_needed(start: int, stop: int, timeline: Timeline, how: Deinterlace | None) -> tuple[int, int]:
    """Frames [first, end) of the source that pictures [start, stop) are made of: bwdif looks at one on either side.

    The first is not a repeated one, since what it repeats lies before it.
    """
    if how is None:
        return start, stop
    first, end = max(0, start // how.per_frame - 1), -(-stop // how.per_frame)
    while first and timeline.repeated[first]:
        first -= 1
    return first, min(len(timeline), end + 1)


def deinterlaced(frames: Iterable[Indexed], start: int, stop: int, how: Deinterlace) -> Iterator[Indexed]:
    """Pictures [start, stop) out of the ``frames_needed`` for them; the same ones whatever the range.

    bwdif sees all frames, so that each picture depends on three of them and on nothing before; a frame that needs nothing
    done is then given out as it is. Formats that are not planar become so. Raises MediaError where bwdif takes no such format.
    """
    graph: Graph | None = None
    waiting: dict[int, av.VideoFrame] = {}
    num_frames = 0
    for index, given in frames:
        num_frames += 1
        frame = planar(given)
        graph = graph or bwdif(frame, how)
        # The number of the frame serves as its time: bwdif gives 2n and 2n + 1 for the two pictures of frame n.
        frame.pts, frame.time_base = index, Fraction(1)
        waiting[index] = frame
        graph.push(frame)
        yield from _finished(graph, waiting, start, stop, how)
    if graph is not None:
        if num_frames == 1:  # bwdif times the last second field by the frame before: of one frame, like the first
            frame.pts, waiting[index + 1] = index + 1, frame
            graph.push(frame)
        graph.push(None)
        yield from _finished(graph, waiting, start, stop, how)


def _finished(
    graph: Graph, waiting: dict[int, av.VideoFrame], start: int, stop: int, how: Deinterlace
) -> Iterator[tuple[int, av.VideoFrame]]:
    while True:
        try:
            picture = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        assert isinstance(picture, av.VideoFrame)
        assert picture.pts is not None
        index, second = divmod(picture.pts, 2)
        original = waiting[index]
        if picture.format.name != original.format.name:
            raise MediaError(f"bwdif cannot deinterlace {original.format.name}; convert the source to another format first")
        for old in [key for key in waiting if key < index]:
            del waiting[old]
        place = index * how.per_frame + second
        if start <= place < stop:
            yield place, picture if how.every or original.interlaced_frame else original


def planar(frame: av.VideoFrame) -> av.VideoFrame:
    """The frame in a format of planes, its samples untouched; it still says whether and how it is interlaced."""
    name = REPACKED.get(frame.format.name)
    return frame.reformat(format=name) if name else frame


def bwdif(frame: av.VideoFrame, how: Deinterlace) -> Graph:
    """The filter for frames like this one."""
    graph = Graph()
    mode = "send_field" if how.per_frame == 2 else "send_frame"
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1))
    filtered = graph.add("bwdif", f"mode={mode}:parity={how.parity}:deint=all")
    sink = graph.add("buffersink")
    source.link_to(filtered)
    filtered.link_to(sink)
    graph.configure()
    return graph
