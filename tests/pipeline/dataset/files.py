"""Picture files drawn by the tests, of every kind that is read."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

import av
import numpy as np
from PIL import Image

from pipeline.dataset import png
from pipeline.dataset.picture import Limits

ANY = Limits(max_pixels=1 << 20, animated="first")


def drawn(width: int = 27, height: int = 21) -> np.ndarray:
    """(H, W, 3) uint8 that looks like itself in one orientation only."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 9, y * 10, (x + 2 * y) * 3], axis=-1).astype(np.uint8)


def noise(*shape: int) -> np.ndarray:
    """uint16 of full range."""
    return np.random.default_rng(0).integers(0, 65536, shape, dtype=np.uint16)


def random_picture(height: int, width: int, channels: int, dtype: type) -> np.ndarray:
    """(H, W, C) noise, part of it transparent where there is alpha."""
    pixels = noise(height, width, channels).astype(dtype)
    if channels in (2, 4):
        pixels[3:9, 2:12, -1] = 0
    return pixels


def saved(image: Image.Image | np.ndarray, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(out, kind, **options)
    return out.getvalue()


def tiff16(pixels: np.ndarray, compression: str = "lzw") -> bytes:
    """(H, W, 3 or 4) uint16 as TIFF, by FFmpeg."""
    height, width, channels = pixels.shape
    context: Any = av.CodecContext.create("tiff", "w")
    context.width, context.height, context.time_base = width, height, Fraction(1)
    context.pix_fmt = "rgb48le" if channels == 3 else "rgba64le"
    context.options = {"compression_algo": compression}
    frame = av.VideoFrame.from_ndarray(pixels, context.pix_fmt)
    frame.pts = 0
    return b"".join(bytes(packet) for packet in context.encode(frame) + context.encode(None))


def exif_block() -> Image.Exif:
    """Lying on its side, with a size, a place, and a thumbnail."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x0110] = 6, "Maker", "A camera with a long name"
    exif.get_ifd(0x8769).update({0xA002: 27, 0xA003: 21, 0x9003: "2024:05:06 07:08:09", 0x927C: b"maker's note" * 3})
    exif.get_ifd(0x8825).update({1: "N", 2: (47.0, 22.0, 8.5)})
    return exif


def every_kind() -> dict[str, bytes]:
    """Small files: all formats, modes, depths and compressions that behave differently."""
    image = Image.fromarray(drawn())
    other = image.rotate(180)
    exif = exif_block().tobytes()
    grey16 = Image.fromarray(noise(21, 27))
    files = {
        "jpeg": saved(image, "JPEG", exif=exif, icc_profile=b"p" * 300, xmp=b"<x/>", comment=b"hello"),
        "cmyk": saved(image.convert("CMYK"), "JPEG"),
        "png": saved(image, "PNG", exif=exif, icc_profile=b"p" * 300),
        "palette": saved(image.quantize(8), "PNG", transparency=bytes(range(0, 256, 32))),
        "one bit": saved(image.convert("1"), "PNG", transparency=0),
        "grey alpha": saved(image.convert("LA"), "PNG"),
        "png16": png.encode(noise(21, 27, 4), 6),
        "grey16": saved(grey16, "PNG"),
        "webp": saved(image, "WEBP", exif=exif),
        "lossless": saved(image.convert("RGBA"), "WEBP", lossless=True),
        "tiff": saved(image, "TIFF"),
        "fax": saved(image.convert("1"), "TIFF", compression="group4"),
        "tiff16": tiff16(noise(21, 27, 3)),
        "tiff grey16": saved(grey16, "TIFF"),
        "pages": saved(image, "TIFF", save_all=True, append_images=[other]),
        "bmp": saved(image, "BMP"),
        "gif": saved(image, "GIF"),
        "animated gif": saved(image, "GIF", save_all=True, append_images=[other]),
        "animated webp": saved(image, "WEBP", save_all=True, append_images=[other]),
        "animated png": saved(image, "PNG", save_all=True, append_images=[other]),
        "avif": saved(image, "AVIF", exif=exif),
    }
    for compression in ("tiff_lzw", "jpeg", "tiff_adobe_deflate"):
        files[f"tiff {compression}"] = saved(image, "TIFF", compression=compression)
    return files
