"""Where a video is cut into segments, so that the result is hardly larger than if it had been encoded in one; pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

MIN_SEGMENT_FRAMES = 24  # encoders reorder a few frames and misbehave on segments shorter than that

# How far apart encoders set key frames when left alone (keyint of x264 and x265): a segment as long as that costs no extra one.
KEY_FRAME_DISTANCE = 250


def plan_segments(
    num_frames: int, scenes: Sequence[int], keys: Sequence[int], longest: int, may_start: Sequence[bool]
) -> list[tuple[int, int]]:
    """Half-open ranges that cover [0, num_frames) once, in order, each of at least MIN_SEGMENT_FRAMES where there are as many.

    None is longer than ``longest`` (and a shortest one) but where ``may_start`` denies every frame before. A cut is at the
    last start of a scene after the first quarter of what is allowed, where an encoder sets a key frame anyway; else at the
    source's last key frame in its second half, which is found soonest; else at the end of it.
    """
    if num_frames < 1 or longest < 1:
        raise ValueError(f"num_frames and longest must be at least 1, got {num_frames} and {longest}")
    longest = max(longest, MIN_SEGMENT_FRAMES)
    last = num_frames - MIN_SEGMENT_FRAMES
    candidates = [([frame for frame in frames if may_start[frame]], part) for frames, part in ((scenes, 4), (keys, 2))]
    cuts = [0]
    while num_frames - cuts[-1] > longest:
        start, high = cuts[-1], min(cuts[-1] + longest, last)
        low = start + max(longest // 2, MIN_SEGMENT_FRAMES)
        found = (last_in(frames, start + max(longest // part, MIN_SEGMENT_FRAMES), high) for frames, part in candidates)
        cut = next((frame for frame in found if frame is not None), None)
        if cut is None:
            cut = next((frame for frame in range(high, start + MIN_SEGMENT_FRAMES - 1, -1) if may_start[frame]), None)
        if cut is None:
            cut = next((frame for frame in range(max(high + 1, low), last + 1) if may_start[frame]), None)
        if cut is None:
            break
        cuts.append(cut)
    return list(zip(cuts, [*cuts[1:], num_frames], strict=True))


def last_in(frames: Sequence[int], low: int, high: int) -> int | None:
    """The largest of rising ``frames`` in [low, high]."""
    position = bisect_right(frames, high)
    return frames[position - 1] if position and frames[position - 1] >= low else None
