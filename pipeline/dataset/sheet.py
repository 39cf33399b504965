"""The contact sheet: some pictures before, enlarged by bicubic, beside what became of them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from pipeline.dataset.index import SCHEMA, Row
from pipeline.dataset.picture import Pixels

MAX_PAIRS = 12
CELL = 256  # pixels of a result that are shown, from its middle
MAX_PIXELS = 1 << 28  # a larger picture is not decoded for this
_PAIRS_ACROSS = 2
_GAP, _MARGIN = 4, 16
_PAPER = 240
_BACKDROP = 192  # behind what is transparent

_COLUMNS = [name for name in SCHEMA.names if name not in ("error", "psnr_reduced_db", "colour_drift")]


def choose(index: Path) -> list[Row]:
    """At most ``MAX_PAIRS`` rows in the order of their keys: those whose sources have the least digests, each content once.

    So the choice is spread over the archive, and changes little when the archive does.
    """
    best: dict[str, Row] = {}
    bound = "g"  # above every hex digit
    with pq.ParquetFile(index, pre_buffer=False) as file:
        for batch in file.iter_batches(512, columns=_COLUMNS, use_threads=False):  # rows become Python objects
            small = pc.field("output_width").cast(pa.int64()) * pc.field("output_height") <= MAX_PIXELS
            wanted = small & (pc.field("status") == "ok") & (pc.field("source_sha256") < bound)
            for values in pa.Table.from_batches([batch]).filter(wanted).to_pylist():
                best.setdefault(values["source_sha256"], Row(**values))
            best = dict(sorted(best.items())[:MAX_PAIRS])
            bound = max(best) if len(best) == MAX_PAIRS else bound
    return sorted(best.values(), key=lambda row: row.key)


def pair(before: Pixels, after: Pixels) -> NDArray[np.uint8]:
    """(CELL, 2 * CELL + gap, 3): on the right the middle of ``after``, on the left the same part of ``before``, as large."""
    height, width = min(CELL, after.shape[0]), min(CELL, after.shape[1])
    top, left = (after.shape[0] - height) // 2, (after.shape[1] - width) // 2
    down, across = before.shape[0] / after.shape[0], before.shape[1] / after.shape[1]
    # bicubic looks two pixels further; converting a whole large picture would take seconds
    y, x = max(0, int(top * down) - 4), max(0, int(left * across) - 4)
    part = before[y : int((top + height) * down) + 5, x : int((left + width) * across) + 5]
    box = (left * across - x, top * down - y, (left + width) * across - x, (top + height) * down - y)
    enlarged = Image.fromarray(as_rgb(part)).resize((width, height), Image.Resampling.BICUBIC, box)
    cells = np.full((CELL, 2 * CELL + _GAP, 3), _PAPER, np.uint8)
    y, x = (CELL - height) // 2, (CELL - width) // 2
    cells[y : y + height, x : x + width] = np.asarray(enlarged)
    cells[y : y + height, CELL + _GAP + x :][:, :width] = as_rgb(after[top : top + height, left : left + width])
    return cells


def as_rgb(pixels: Pixels) -> NDArray[np.uint8]:
    """(H, W, C) uint8 or uint16, C 1 to 4, -> (H, W, 3) uint8, what is transparent over grey."""
    num_channels = pixels.shape[2]
    values: NDArray[Any] = pixels / (257.0 if pixels.dtype == np.uint16 else 1.0)
    colour = values[..., :1].repeat(3, axis=2) if num_channels < 3 else values[..., :3]
    if num_channels in (2, 4):
        opaque = values[..., -1:] / 255
        colour = colour * opaque + _BACKDROP * (1 - opaque)
    return colour.round().astype(np.uint8)


def draw(pairs: Sequence[NDArray[np.uint8]]) -> bytes:
    """The pairs as one PNG, from left to right and from top to bottom."""
    across = min(_PAIRS_ACROSS, len(pairs))
    height, width = CELL + _MARGIN, 2 * CELL + _GAP + _MARGIN
    sheet = np.full((-(-len(pairs) // across) * height + _MARGIN, across * width + _MARGIN, 3), _PAPER, np.uint8)
    for i, cells in enumerate(pairs):
        y, x = _MARGIN + i // across * height, _MARGIN + i % across * width
        sheet[y : y + CELL, x : x + cells.shape[1]] = cells
    png = io.BytesIO()
    Image.fromarray(sheet).save(png, "PNG", compress_level=3)
    return png.getvalue()
