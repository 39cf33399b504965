"""Between FFmpeg's frames and the tensors of planes that swinir.colour converts."""

from __future__ import annotations

import zlib
from typing import Any, Literal

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import MediaError
from swinir.colour import PlaneLayout

# Frames that FFmpeg's own scaler turns into planes without touching a sample value.
REPACKED = {
    "nv12": "yuv420p", "nv21": "yuv420p", "nv16": "yuv422p", "nv24": "yuv444p", "yuyv422": "yuv422p", "uyvy422": "yuv422p",
    "p010le": "yuv420p10le", "p016le": "yuv420p16le", "p210le": "yuv422p10le", "p410le": "yuv444p10le",
    "rgb24": "gbrp", "bgr24": "gbrp", "rgba": "gbrp", "bgra": "gbrp", "argb": "gbrp", "abgr": "gbrp", "rgb0": "gbrp",
    "bgr0": "gbrp", "0rgb": "gbrp", "0bgr": "gbrp", "pal8": "gbrp", "rgb8": "gbrp", "bgr8": "gbrp",
    "rgb48le": "gbrp16le", "rgba64le": "gbrp16le", "rgb48be": "gbrp16le", "rgba64be": "gbrp16le",
    "ya8": "gray", "ya16le": "gray16le", "monow": "gray", "monob": "gray",
}  # fmt: skip


def rows(plane: Any, bytes_per_sample: int) -> NDArray[np.uint8]:  # noqa: ANN401  (av.VideoPlane is not exported)
    """The visible bytes of one plane, (height, width * bytes_per_sample), without the padding of its rows; a view."""
    data = np.frombuffer(plane, np.uint8)[: plane.height * plane.line_size]
    return data.reshape(plane.height, plane.line_size)[:, : plane.width * bytes_per_sample]


def checksum(frame: av.VideoFrame) -> int:
    """CRC-32 over the visible samples of every plane."""
    crc = 0
    for plane in frame.planes:
        crc = zlib.crc32(np.ascontiguousarray(rows(plane, _sample_bytes(frame.format))).data, crc)
    return crc


def _sample_bytes(pix_fmt: av.VideoFormat) -> int:
    """Bytes from one sample to the next in a row of plane 0."""
    if len({component.plane for component in pix_fmt.components}) > 1 or len(pix_fmt.components) == 1:
        return (max(component.bits for component in pix_fmt.components) + 7) // 8
    return max(1, pix_fmt.padded_bits_per_pixel // 8)


def layout_of(pix_fmt: str, matrix: str, full_range: bool) -> PlaneLayout:
    """How ``pix_fmt`` (a planar format, or one that ``REPACKED`` knows) holds its samples. MediaError where it is neither."""
    known = av.VideoFormat(REPACKED.get(pix_fmt, pix_fmt), 16, 16)
    components = [component for component in known.components if not component.is_alpha]
    planar = len({component.plane for component in components}) == len(components)
    depth = components[0].bits
    if (
        not planar
        or depth < 8
        or known.is_bayer
        or known.name.endswith("be")
        or known.name.startswith(("xyz", "gbrpf", "grayf"))
    ):
        raise MediaError(f"pixel format {pix_fmt} is not supported; convert the source to a planar YUV or RGB format first")
    kind: Literal["yuv", "gray", "rgb"] = "rgb" if known.is_rgb else "gray" if len(components) == 1 else "yuv"
    x, y = (0, 0) if kind != "yuv" else (known.chroma_width(16), known.chroma_height(16))
    shifts = (0, 0) if kind != "yuv" else ((16 // x).bit_length() - 1, (16 // y).bit_length() - 1)
    full = full_range or pix_fmt.startswith("yuvj") or kind == "rgb"
    return PlaneLayout(kind, depth, *shifts, matrix=matrix, full_range=full)


def to_planes(frame: av.VideoFrame, layout: PlaneLayout) -> list[Tensor]:
    """The planes of a frame as (H, W) uint8 or uint16 tensors, R, G, B order for RGB; alpha is left out."""
    if frame.format.name in REPACKED:
        frame = frame.reformat(format=REPACKED[frame.format.name])
    wide = layout.depth > 8
    planes = []
    for plane in list(frame.planes)[: 1 if layout.kind == "gray" else 3]:
        # Not a view: the decoder reuses its buffers.
        samples = np.ascontiguousarray(rows(plane, 2 if wide else 1)).copy()
        planes.append(torch.from_numpy(samples.view(np.uint16) if wide else samples))
    return _from_gbr(planes) if layout.kind == "rgb" else planes


def from_planes(planes: list[Tensor], layout: PlaneLayout, pix_fmt: str) -> av.VideoFrame:
    """A new frame of format ``pix_fmt``, planar or known to ``REPACKED``, holding ``planes``."""
    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, REPACKED.get(pix_fmt, pix_fmt))
    ordered = [planes[1], planes[2], planes[0]] if layout.kind == "rgb" else planes
    for plane, samples in zip(frame.planes, ordered, strict=True):
        data = samples.contiguous().numpy()
        rows(plane, data.itemsize)[:] = data.view(np.uint8).reshape(data.shape[0], -1)
    return frame.reformat(format=pix_fmt) if pix_fmt in REPACKED else frame


def _from_gbr(planes: list[Tensor]) -> list[Tensor]:
    g, b, r = planes
    return [r, g, b]
