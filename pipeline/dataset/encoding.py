"""A larger picture into a file again, with what belonged to it: the same bytes for the same pixels and settings.

JPEG, PNG and WebP stay what they were; everything else becomes PNG, and so does what the format asked for cannot hold: alpha,
16 bits, colours that no profile states, sides or metadata beyond its limits. Nothing is lost for the sake of a format.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from pipeline.dataset import animation, colours, exif, png
from pipeline.dataset.picture import Encoding, Metadata, Picture, Pixels

ENDINGS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
LONGEST_SIDE = {"JPEG": 65500, "WEBP": 16383}
LONGEST_SEGMENT = 65533 - len(b"http://ns.adobe.com/xap/1.0/\0")  # bytes of EXIF or XMP in a JPEG file
JFIF_UNIT_AT = 13  # then the densities across and down follow, of two bytes each (JFIF 1.02)
LARGEST_JPEG_PROFILE = 255 * (65533 - 14)
PILLOW_BYTES = 192 << 20  # more is written in bands, without Pillow's own copy of it all
SUBSAMPLINGS = {"444": 0, "422": 1, "420": 2}


def write_picture(picture: Picture, pixels: Pixels, encoding: Encoding, more: Sequence[Pixels] = ()) -> tuple[bytes, str]:
    """``pixels`` (H, W, C) with the metadata of the ``picture`` they were made of; the file and its ending (".jpg").

    ``more`` are the other frames of an animation, which JPEG does not hold.
    """
    kind = format_for(picture, pixels.shape, pixels.dtype, encoding)
    if more:
        kind = "WEBP" if kind == "WEBP" else "PNG"
        block = _exif_block(picture, *pixels.shape[1::-1])
        options = {"compress_level": encoding.png_level} if kind == "PNG" else _options(kind, picture, block, encoding)
        data = animation.write([pixels, *more], kind, picture, options)
        data = png.with_chunks(data, _extra(picture, block)) if kind == "PNG" else data
    elif kind == "PNG":
        data = _png(pixels, encoding.png_level, picture)
    else:
        with Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels) as image:
            data = save(image, kind, picture, encoding)
    return data, ENDINGS[kind]


def save(image: Image.Image, kind: str, picture: Picture, encoding: Encoding) -> bytes:
    """A JPEG or WebP file of ``image``, with the metadata of the ``picture`` it was made of."""
    block = _exif_block(picture, *image.size)
    out = io.BytesIO()
    image.save(out, kind, **_options(kind, picture, block, encoding))
    aspect = png.aspect(picture.metadata.chunks)
    if kind == "JPEG" and aspect and min(aspect) > 0 and max(aspect) < 1 << 16:
        out.seek(JFIF_UNIT_AT)  # Pillow writes no densities without a unit
        out.write(struct.pack(">BHH", 0, *aspect))
    return out.getvalue()


def open_png(file: BinaryIO, picture: Picture, shape: tuple[int, ...], encoding: Encoding) -> png.Writer:
    """The file that ``write_picture`` makes of a large picture, for a result (H, W, C) that comes in rows."""
    extra = _extra(picture, _exif_block(picture, *shape[1::-1]))
    return png.Writer(file, shape, picture.pixels.dtype, encoding.png_level, extra)


def _exif_block(picture: Picture, width: int, height: int) -> bytes | None:
    """The picture's Exif with the size of its result in it."""
    return exif.with_size(picture.metadata.exif, width, height) if picture.metadata.exif else None


def format_for(picture: Picture, shape: tuple[int, ...], dtype: np.dtype[Any], encoding: Encoding) -> str:
    """Pillow's name of the format that holds all of a result (H, W, C)."""
    asked = picture.format if encoding.format == "same" else encoding.format.upper()
    alpha, deep = shape[2] in (2, 4), dtype == np.uint16
    if asked not in LONGEST_SIDE or deep or max(shape[:2]) > LONGEST_SIDE[asked]:
        return "PNG"
    if not colours.are_srgb(picture.metadata.chunks, picture.metadata.icc):
        return "PNG"
    if asked == "JPEG" and (alpha or not _fits_jpeg(picture.metadata)):
        return "PNG"
    if asked == "WEBP" and (picture.metadata.icc or b"")[16:20] == b"GRAY":  # WebP has RGB alone, for which that is no profile
        return "PNG"
    return asked


def _fits_jpeg(metadata: Metadata) -> bool:
    blocks = (metadata.exif or b"", metadata.xmp or b"")
    return max(map(len, blocks)) <= LONGEST_SEGMENT and len(metadata.icc or b"") <= LARGEST_JPEG_PROFILE


def _options(kind: str, picture: Picture, block: bytes | None, encoding: Encoding) -> dict[str, Any]:
    """Of Pillow's JPEG and WebP writers."""
    metadata = picture.metadata
    options: dict[str, Any] = {"quality": encoding.quality, "icc_profile": metadata.icc, "xmp": metadata.xmp or b""}
    if kind == "WEBP":
        lossless = picture.format == "WEBP" and picture.lossless
        # "exact" keeps the colours of transparent pixels.
        block = block or (exif.with_resolution(metadata.dpi) if metadata.dpi else b"")
        return options | {"exif": block, "lossless": lossless, "exact": True}
    options |= {"subsampling": SUBSAMPLINGS[encoding.subsampling], "extra": metadata.segments, "comment": metadata.comment}
    if metadata.dpi:
        options["dpi"] = metadata.dpi
    return options | {"exif": exif.PREFIX + block if block else b""}


def _png(pixels: Pixels, level: int, picture: Picture) -> bytes:
    extra = _extra(picture, _exif_block(picture, *pixels.shape[1::-1]))
    if pixels.dtype == np.uint16 or pixels.nbytes > PILLOW_BYTES:
        return png.encode(pixels, level, extra)
    out = io.BytesIO()
    with Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels) as image:
        image.save(out, "PNG", compress_level=level)
    return png.with_chunks(out.getvalue(), extra)


def _extra(picture: Picture, block: bytes | None) -> bytes:
    metadata = picture.metadata
    return png.metadata_chunks(metadata.icc, block, metadata.xmp, metadata.dpi, metadata.chunks)
