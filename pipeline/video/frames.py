"""Between FFmpeg's frames and the tensors of planes that swinir.colour converts."""

from __future__ import annotations

import re
import zlib
from typing import Any, Literal

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import MediaError
from pipeline.video.packing import REPACKED, pack, unpack
from swinir.colour import PlaneLayout


def rows(plane: Any, bytes_per_sample: int) -> NDArray[np.uint8]:  # noqa: ANN401  (av.VideoPlane is not exported)
    """The visible bytes of one plane, (height, width * bytes_per_sample), without the padding of its rows; a view."""
    data = np.frombuffer(plane, np.uint8)[: plane.height * plane.line_size]
    return data.reshape(plane.height, plane.line_size)[:, : plane.width * bytes_per_sample]


def checksum(frame: av.VideoFrame) -> int:
    """CRC-32 over the visible samples of every plane, and whether the frame says that it is interlaced.

    H.264 decoders may say that by what came before: after a seek it can differ where the samples do not.
    """
    crc = zlib.crc32(b"interlaced") if frame.interlaced_frame else 0
    for index, plane in enumerate(frame.planes):
        seen = rows(plane, sample_bytes(frame.format, index))
        if frame.format.padded_bits_per_pixel == 1:
            seen = seen[:, : (plane.width + 7) // 8]
        crc = zlib.crc32(np.ascontiguousarray(seen).data, crc)
    return zlib.crc32(frame.planes[1], crc) if frame.format.has_palette else crc


def sample_bytes(pix_fmt: av.VideoFormat, plane: int = 0) -> int:
    """Bytes from one sample, or pair of U and V, to the next in a row of a plane."""
    planes = [component.plane for component in pix_fmt.components]
    if len(set(planes)) > 1 or len(planes) == 1:
        return (max(component.bits for component in pix_fmt.components) + 7) // 8 * planes.count(plane)
    return max(1, pix_fmt.padded_bits_per_pixel // 8)


def layout_of(pix_fmt: str, matrix: str, full_range: bool) -> PlaneLayout:
    """How ``pix_fmt`` (a format of planes, or one of ``REPACKED``) holds its samples. MediaError where it is neither.

    ``matrix`` "gbr" (H.273 code point 0) says that a YUV format of full-size planes holds G, B and R.
    """
    known = av.VideoFormat(REPACKED.get(pix_fmt, pix_fmt), 16, 16)
    components = [component for component in known.components if not component.is_alpha]
    depth = components[0].bits
    planar = len({component.plane for component in components}) == len(components)
    strange = known.is_bayer or re.match(r"xyz|\w+f(16|32)|\w+msb", known.name)
    if not planar or depth < 8 or strange:
        raise MediaError(f"pixel format {pix_fmt} is not supported; convert the source to a planar YUV or RGB format first")
    is_rgb = known.is_rgb or matrix == "gbr"
    kind: Literal["yuv", "gray", "rgb"] = "rgb" if is_rgb else "gray" if len(components) == 1 else "yuv"
    x, y = (16, 16) if kind != "yuv" else (known.chroma_width(16), known.chroma_height(16))
    return PlaneLayout(
        kind,
        depth,
        chroma_x=(16 // x).bit_length() - 1,
        chroma_y=(16 // y).bit_length() - 1,
        matrix=matrix,
        full_range=full_range or known.is_rgb or pix_fmt.startswith(("yuvj", "mono")),
        alpha=len(components) < len(known.components),
    )


def to_planes(frame: av.VideoFrame, layout: PlaneLayout) -> list[Tensor]:
    """The planes of a frame as (H, W) uint8 or uint16 tensors: Y, U, V or R, G, B, and alpha where the layout has it."""
    if frame.format.name in REPACKED:
        channels = unpack(frame)
        return [torch.from_numpy(np.ascontiguousarray(channels[name])) for name in _names(layout)]
    planes = []
    for plane in frame.planes:
        # Not a view: the decoder reuses its buffers.
        samples = np.ascontiguousarray(rows(plane, 1 if layout.depth == 8 else 2)).copy()
        if layout.depth > 8:
            samples = samples.view(">u2" if frame.format.is_big_endian else "<u2").astype(np.uint16)
        planes.append(torch.from_numpy(samples))
    return [*_from_gbr(planes[:3]), *planes[3:]] if layout.kind == "rgb" else planes


def from_planes(planes: list[Tensor], layout: PlaneLayout, pix_fmt: str) -> av.VideoFrame:
    """A new frame of format ``pix_fmt`` holding ``planes``."""
    if pix_fmt in REPACKED:
        return pack({name: plane.numpy() for name, plane in zip(_names(layout), planes, strict=True)}, pix_fmt)
    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, pix_fmt)
    ordered = [planes[1], planes[2], planes[0], *planes[3:]] if layout.kind == "rgb" else planes
    for plane, samples in zip(frame.planes, ordered, strict=True):
        data = samples.contiguous().numpy()
        data = data.byteswap() if frame.format.is_big_endian else data
        rows(plane, data.itemsize)[:] = data.view(np.uint8).reshape(data.shape[0], -1)
    return frame


def is_transparent(frame: av.VideoFrame) -> bool:
    """Whether any of its pixels is not opaque."""
    name = frame.format.name
    if name != "pal8" and not any(component.is_alpha for component in frame.format.components):
        return False
    layout = layout_of(name, "bt709", full_range=False)
    alpha = to_planes(frame, layout)[-1]
    return bool((alpha.int() != 2**layout.depth - 1).any())


def _names(layout: PlaneLayout) -> str:
    """The channels of a layout's planes, in their order."""
    return {"yuv": "YUV", "gray": "Y", "rgb": "RGB"}[layout.kind] + "A" * layout.alpha


def _from_gbr(planes: list[Tensor]) -> list[Tensor]:
    g, b, r = planes
    return [r, g, b]
