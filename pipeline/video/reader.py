"""Decode one range of a video by seeking, held to the checksums of the sequential decode."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing
from functools import lru_cache
from typing import BinaryIO

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from torch import Tensor

from pipeline.errors import MediaError
from pipeline.video.cropping import Window, cropped
from pipeline.video.decoder import decoder_for
from pipeline.video.fields import Deinterlace, deinterlaced, frames_needed
from pipeline.video.frames import checksum, to_planes
from pipeline.video.info import VideoInfo
from pipeline.video.probe import choose_video_stream, open_media, use_threads
from pipeline.video.timeline import NO_PTS, Timeline
from swinir.colour import PlaneLayout

OpenInput = Callable[[], AbstractContextManager[str | BinaryIO]]


def read_range(
    open_input: OpenInput,
    name: str,
    info: VideoInfo,
    timeline: Timeline,
    layout: PlaneLayout,
    start: int,
    stop: int,
    deinterlace: Deinterlace | None = None,
    passing: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, list[Tensor]]]:
    """(number, planes) for every picture of [start, stop): frames, or what ``deinterlace`` makes of them.

    A picture that is shown again comes as the very same planes. ``passing`` and MediaError are as of ``read_frames``.
    """
    first, end = frames_needed(start, stop, timeline, deinterlace)
    window = Window(info.corner[0], info.corner[1], info.width, info.height)
    shown: av.VideoFrame | None = None
    planes: list[Tensor] = []
    with closing(read_frames(open_input, name, info, timeline, first, end, passing)) as frames:
        for number, frame in deinterlaced(frames, start, stop, deinterlace) if deinterlace else frames:
            if frame is not shown:
                shown, planes = frame, cropped(to_planes(frame, layout), layout, window)
            yield number, planes


def read_frames(
    open_input: OpenInput,
    name: str,
    info: VideoInfo,
    timeline: Timeline,
    start: int,
    stop: int,
    passing: Callable[[], None] = lambda: None,
) -> Generator[tuple[int, av.VideoFrame], None, None]:
    """(index, frame) for every frame of [start, stop); a repeated frame gives the one before it again.

    Decoding begins a key frame before the one needed: after a seek, an open GOP shows frames whose references are gone. Where a
    frame's checksum still is not that of the sequential decode, the range is decoded from the start of the file. ``passing`` is
    called for each frame that is decoded on the way to the first.
    Raises MediaError where that differs too: the file is not the one that was probed. In a damaged file only times must agree.
    """
    wanted = int(np.flatnonzero(~timeline.repeated[: start + 1])[-1])
    for seek_frame in seek_points(timeline, wanted):
        with open_input() as source, open_media(source, name) as container:
            video = choose_video_stream(container, name, info.stream)
            use_threads(video, 1 if info.damage else 0)
            # H.264 conceals damage with what is left over in its buffers, which need not be what was there at first.
            same_samples = seek_frame is not None or not info.damage
            for frame in _decode_from(container, video, timeline, wanted, seek_frame, same_samples, passing):
                while True:
                    if wanted >= start:
                        yield wanted, frame
                    wanted += 1
                    if wanted == stop:
                        return
                    if not timeline.repeated[wanted]:
                        break
    raise MediaError(f"{name}: frame {wanted} decodes otherwise than it did at first; did the file change? Run with --fresh")


def seek_points(timeline: Timeline, start: int) -> list[int | None]:
    """Key frames to try decoding from, best first; None is the start of the file."""
    known = known_by_time(timeline).values()
    keys = np.intersect1d(timeline.key[: start + 1].nonzero()[0], list(known))
    return [int(keys[-2]), None] if len(keys) > 2 else [None]


@lru_cache(maxsize=1)  # each segment asks, and there may be hundreds
def known_by_time(timeline: Timeline) -> dict[int | None, int]:
    """The frames that the decoder gives times of their own, by those: right or not, they come again after a seek."""
    pts, first, count = np.unique(timeline.decoder_pts, return_index=True, return_counts=True)
    own = (count == 1) & (pts != NO_PTS)
    return dict(zip(pts[own].tolist(), first[own].tolist(), strict=True))


def _decode_from(
    container: InputContainer,
    video: VideoStream,
    timeline: Timeline,
    wanted: int,
    seek_frame: int | None,
    same_samples: bool,
    passing: Callable[[], None],
) -> Iterator[av.VideoFrame]:
    """Decoded frames from number ``wanted`` on, each checked; they end where they are not what they should be.

    A frame is known by its time, where that is of no other, or else by the frame before it.
    """
    known = known_by_time(timeline)
    decodable = np.flatnonzero(~timeline.repeated)
    place: int | None = 0  # among those, of the frame to come
    if seek_frame is not None:
        container.seek(int(timeline.decoder_pts[seek_frame]), stream=video, backward=True, any_frame=False)
        place = None
    for frame in decode(container, video):
        index = known.get(frame.pts)
        if index is None and place is not None and place < len(decodable):
            index = int(decodable[place])
        if index is None or index < wanted:
            place = place if index is None else int(decodable.searchsorted(index, side="right"))
            passing()
            continue
        if index != wanted or (same_samples and checksum(frame) != timeline.checksum[wanted]):
            return
        yield frame
        place = int(decodable.searchsorted(wanted, side="right"))
        if place == len(decodable):
            return
        wanted = int(decodable[place])


def decode(container: InputContainer, video: VideoStream) -> Iterator[av.VideoFrame]:
    """Every decodable frame in presentation order; packets that cannot be decoded are passed over, as in the probe."""
    packets, decode_packet = container.demux(video), decoder_for(video)
    while True:
        try:
            packet = next(packets)
            frames = decode_packet(packet)
        except (StopIteration, av.error.EOFError):
            return
        except av.error.FFmpegError:
            continue
        yield from frames
