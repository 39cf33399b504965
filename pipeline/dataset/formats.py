"""Which format a picture file has, by its first bytes, and who reads it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from pipeline.dataset import png
from pipeline.dataset.picture import PictureError

# Pillow's classes and not Image.open, which has dozens of others try, Ghostscript among them.
READERS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
}
BEGINNINGS = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "WEBP": rb"RIFF....WEBP",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "BMP": rb"BM",
    "GIF": rb"GIF8[79]a",
    "AVIF": rb"....ftypavi[fs]",
}
KNOWN_OTHERS = {
    "HEIF": rb"....ftyp(hei|hev|mif1|msf1)",
    "JPEG 2000": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL ",
    "Photoshop": rb"8BPS",
    "OpenEXR": rb"v/1\x01",
    "PDF": rb"%PDF",
    "SVG": rb"\s*(<\?xml|<svg)",
    "video": rb"....ftyp|\x1aE\xdf\xa3",
    "camera raw": rb"FUJIFILM|IIRO|IIU\0",
    "netpbm": rb"P[1-7]\s",
    "icon": rb"\0\0[\1\2]\0",
    "compressed archive": rb"PK\x03\x04|\x1f\x8b\x08|BZh[1-9]|\xfd7zXZ\0|\x28\xb5\x2f\xfd|7z\xbc\xaf\x27\x1c|Rar!",
}


def format_of(data: bytes) -> str:
    """Which of ``READERS`` reads a file, by its first bytes. Raises PictureError for what is none."""
    if not data:
        raise PictureError("decode_error", "the file is empty")
    for kind, beginning in BEGINNINGS.items():
        if re.match(beginning, data[:64], re.DOTALL):
            return kind
    for kind, beginning in KNOWN_OTHERS.items():
        if re.match(beginning, data[:64], re.DOTALL):
            raise PictureError("unsupported", f"{kind} is not read; pictures are {', '.join(READERS)}")
    raise PictureError("decode_error", f"not a picture: it begins with {data[:8]!r}")


# In place of Pillow's numbers: what is wanted, ``Limits`` say, and text and profiles, inflated, are bound where our own are.
NUMBERS: tuple[tuple[Any, str, int | None], ...] = (
    (Image, "MAX_IMAGE_PIXELS", None),
    (PngImagePlugin, "MAX_TEXT_CHUNK", png.LARGEST_PROFILE),
    (PngImagePlugin, "MAX_TEXT_MEMORY", 16 * png.LARGEST_PROFILE),
)


class _OurLimits:
    """While any thread decodes, Pillow has our limits, ``NUMBERS``, and warns of nothing.

    Numbers and filters belong to the process, so the last thread puts them back.
    """

    def __init__(self) -> None:
        self._lock, self._threads = Lock(), 0
        self._filters = warnings.catch_warnings()
        self._before: list[int | None] = []

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            self._threads += 1
            if self._threads == 1:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
                self._before = [getattr(module, name) for module, name, _ in NUMBERS]
                for module, name, number in NUMBERS:
                    setattr(module, name, number)
        try:
            yield
        finally:
            with self._lock:
                self._threads -= 1
                if self._threads == 0:
                    self._filters.__exit__(None, None, None)
                    for (module, name, _), number in zip(NUMBERS, self._before, strict=True):
                        setattr(module, name, number)


our_limits = _OurLimits()
