"""All pictures of an archive as RGB in memory, as training wants them."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from pipeline.dataset.images import read_picture
from pipeline.dataset.listing import is_side_file
from pipeline.dataset.picture import Limits, PictureError, Pixels
from pipeline.dataset.reading import NoPictureError, one_line
from pipeline.dataset.sources import Item, open_source, read_ahead
from pipeline.errors import ConfigError, MediaError
from pipeline.stages import in_parallel

_LIMITS = Limits(max_pixels=1 << 29, animated="first")
_BUDGET_BYTES = 256 << 20


def rgb_pictures(url: str, image_column: str | None = None) -> list[NDArray[np.uint8]]:
    """Every picture of what ``open_source`` reads, (H, W, 3) uint8, upright, in the order of their keys.

    16 bits are rounded to 8, alpha is left out, an animation gives its first picture. Raises MediaError for the first that
    cannot be read, by file and row, and ConfigError where there is none.
    """
    source = open_source(url, image_column)
    items = (item for item in source.items() if not is_side_file(item.key))
    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        read = (one for one in read_ahead(source, items, threads, _BUDGET_BYTES) if not isinstance(one[1], NoPictureError))
        pictures = list(in_parallel(pool, _decoded, read, 2 * threads))
    if not pictures:
        raise ConfigError(f"{url} holds no pictures")
    return pictures


def _decoded(read: tuple[Item, bytes | MediaError]) -> NDArray[np.uint8]:
    item, data = read
    if isinstance(data, MediaError):
        raise data
    try:
        return as_rgb(read_picture(data, _LIMITS).pixels)
    except PictureError as error:
        place = f", row {item.member}" if item.url.lower().endswith(".parquet") else f" ({item.key})" * bool(item.member)
        raise MediaError(one_line(f"{item.url}{place}: {error}; take it out or mend it")) from error


def as_rgb(pixels: Pixels) -> NDArray[np.uint8]:
    """(H, W, C) of 8 or 16 bits and 1 to 4 channels as (H, W, 3) uint8."""
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    colour = pixels[..., :3] if pixels.shape[-1] >= 3 else np.repeat(pixels[..., :1], 3, axis=2)
    return np.ascontiguousarray(colour)
