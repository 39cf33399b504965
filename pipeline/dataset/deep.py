"""Pictures of 16 bits in more than one channel, which Pillow would cut to 8: decoded by FFmpeg."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

CHANNELS = {"gray16": 1, "ya16": 2, "rgb48": 3, "rgba64": 4}  # by FFmpeg's pixel format, less its byte order
LARGEST_BYTES = 2**31 - 1  # of a frame, which FFmpeg counts in ints


def fits(width: int, height: int) -> bool:
    """Whether FFmpeg decodes pictures of this size (av_image_check_size2 adds 128 to each side)."""
    return (width + 128) * (height + 128) * 8 < LARGEST_BYTES


def decode(data: bytes, codec: str) -> NDArray[np.uint16]:
    """The first picture of a "png" or "tiff" file, (H, W, C) uint16, C 1 to 4: grey, grey and alpha, RGB, RGB and alpha.

    Raises av.FFmpegError where it is damaged and ValueError where its samples are not of 16 bits.
    """
    context: Any = av.CodecContext.create(codec, "r")
    context.thread_count = 1
    # FFmpeg gives what it can of a damaged PNG unless told so; its TIFF decoder takes "explode" for any file's fault.
    context.options = {"err_detect": "crccheck+explode" if codec == "png" else "crccheck"}
    frames = context.decode(av.Packet(data)) + context.decode(None)
    if not frames:
        raise ValueError("there is no picture in it")
    frame = frames[0]
    name = frame.format.name
    channels = CHANNELS.get(name.removesuffix("le").removesuffix("be"))
    if channels is None:
        raise ValueError(f"its samples are stored as {name}")
    order = ">" if name.endswith("be") else "<"
    plane = frame.planes[0]
    lines = np.frombuffer(plane, np.uint8)[: plane.height * plane.line_size].reshape(plane.height, plane.line_size)
    samples = np.ascontiguousarray(lines[:, : plane.width * channels * 2]).view(f"{order}u2").astype(np.uint16)
    return samples.reshape(plane.height, plane.width, channels)
