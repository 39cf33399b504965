"""The pictures of an archive as RGB, as training wants them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from pipeline.dataset.ahead import read_ahead
from pipeline.dataset.images import read_picture
from pipeline.dataset.listing import is_side_file
from pipeline.dataset.picture import Limits, PictureError, Pixels
from pipeline.dataset.reading import one_line
from pipeline.dataset.sources import Item, open_source
from pipeline.errors import ConfigError, MediaError
from pipeline.stages import in_parallel

LIMITS = Limits(max_pixels=1 << 29, animated="first")
_BUDGET_BYTES = 256 << 20


class RgbPictures(Sequence[NDArray[np.uint8]]):
    """Every picture of what ``open_source`` reads, (H, W, 3) uint8, upright, in the order of their keys; read when asked for.

    16 bits are rounded to 8, alpha is left out, an animation gives its first picture. ConfigError where there is none; taking
    one that cannot be read raises MediaError, by file and row. To go through them reads ahead. ``exclude`` as there; folders of
    training runs below ``url``, whose curves and sheets are no photographs, are left out too.
    """

    def __init__(self, url: str, image_column: str | None = None, exclude: str | None = None) -> None:
        self._source = open_source(url, image_column, exclude=exclude)
        items = list(self._source.items())
        keys = {item.key for item in items}
        runs = {key.removesuffix("log.jsonl") for key in keys if key.endswith("/log.jsonl")}
        runs = {folder for folder in runs if f"{folder}pairs.png" in keys}
        wanted = (item for item in items if item.key[: item.key.rfind("/") + 1] not in runs)
        self._items = [item for item in wanted if not is_side_file(item.key) and not item.is_aside]
        if not self._items:
            raise ConfigError(f"{url} holds no pictures")

    def __len__(self) -> int:
        return len(self._items)

    def names_and_sizes(self) -> list[tuple[str, int]]:
        """The keys and bytes of the pictures: alike for an archive that was only moved."""
        return [(item.key, item.size_bytes) for item in self._items]

    def __getitem__(self, index: int) -> NDArray[np.uint8]:  # type: ignore[override]  # slices have no use
        item = self._items[index]
        return _decoded((item, self._source.read(item)))

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        threads = os.cpu_count() or 1
        read = read_ahead(self._source, self._items, threads, _BUDGET_BYTES)
        with ThreadPoolExecutor(threads) as pool:
            try:
                yield from in_parallel(pool, _decoded, read, 2 * threads)
            except MediaError as error:
                raise MediaError(f"{error}; take it out or mend it") from error


class ReadablePictures(Sequence[NDArray[np.uint8]]):
    """``pictures``, with (0, 0, 3) in the place of each that cannot be read; why is told once, to ``tell``."""

    def __init__(self, pictures: RgbPictures, tell: Callable[[str], None]) -> None:
        self._pictures, self._tell, self._told = pictures, tell, set[int]()

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:  # type: ignore[override]  # slices have no use
        try:
            return self._pictures[index]
        except MediaError as error:
            if index not in self._told:
                self._told.add(index)
                self._tell(f"{error}; passed over")
            return np.empty((0, 0, 3), np.uint8)


def _decoded(read: tuple[Item, bytes | MediaError]) -> NDArray[np.uint8]:
    item, data = read
    if isinstance(data, MediaError):
        raise data
    try:
        return as_rgb(read_picture(data, LIMITS).pixels)
    except PictureError as error:
        place = f", row {item.member}" if item.url.lower().endswith(".parquet") else f" ({item.key})" * bool(item.member)
        raise MediaError(one_line(f"{item.url}{place}: {error}")) from error


def as_rgb(pixels: Pixels) -> NDArray[np.uint8]:
    """(H, W, C) of 8 or 16 bits and 1 to 4 channels as (H, W, 3) uint8."""
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    colour = pixels[..., :3] if pixels.shape[-1] >= 3 else np.repeat(pixels[..., :1], 3, axis=2)
    return np.ascontiguousarray(colour)
