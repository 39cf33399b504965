"""The decoder of a video stream: FFmpeg's own, or libvpx's where transparency lies beside the picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import av
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

Decode = Callable[["av.Packet[Any]"], list[av.VideoFrame]]

# WebM keeps alpha as a second stream inside each packet, which FFmpeg's own decoders pass over.
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


def decoder_for(video: VideoStream) -> Decode:
    """What turns the stream's packets into frames, from where the container stands on; the empty last packet drains it."""
    name = ALPHA_DECODERS.get(video.codec_context.name)
    # A field of the track, which a copy may have turned into a tag; those are written large.
    if name is None or "1" not in (video.metadata.get("alpha_mode"), video.metadata.get("ALPHA_MODE")):
        return lambda packet: [frame for frame in packet.decode() if isinstance(frame, av.VideoFrame)]
    context = av.CodecContext.create(name, "r")
    assert isinstance(context, VideoCodecContext)
    context.thread_count = video.codec_context.thread_count

    def decode(packet: av.Packet[Any]) -> list[av.VideoFrame]:
        frames = context.decode(packet)
        for frame in frames:
            frame.key_frame = packet.is_keyframe  # type: ignore[misc]  # libvpx does not tell; it delays no frame
        return frames

    return decode
