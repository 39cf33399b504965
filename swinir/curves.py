"""The log of a training run, and its curves as a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

Row = dict[str, float]

CURVES = (("psnr", "validation PSNR, dB", "blue"), ("loss", "loss", "red"), ("patches_per_second", "patches a second", "green"))
WIDTH, PANEL_HEIGHT, MARGIN = 900, 240, 60


def read_log(folder: Path) -> Iterator[Row]:
    """The rows of a run so far; a line cut short by a kill is passed over."""
    for line in (folder / "log.jsonl").read_text().splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def plot_curves(rows: Sequence[Row], path: Path) -> None:
    """Each of ``CURVES`` over the steps in a panel of its own, scaled to its range, as PNG; rows without it are passed over."""
    page = Image.new("RGB", (WIDTH, PANEL_HEIGHT * len(CURVES)), "white")
    last = max(row["step"] for row in rows)
    for number, (name, title, colour) in enumerate(CURVES):
        points = [(row["step"] / last, row[name]) for row in rows if not math.isnan(row.get(name, math.nan))]
        _plot(ImageDraw.Draw(page), points, PANEL_HEIGHT * number, title, colour)
    ImageDraw.Draw(page).text((WIDTH - 2 * MARGIN, page.height - 20), f"step {last:.0f}", fill="black")
    page.save(path)


def _plot(draw: ImageDraw.ImageDraw, points: list[tuple[float, float]], top: int, title: str, colour: str) -> None:
    """One panel; ``points`` are (part of the way, value)."""
    above, below, width = top + 30, top + PANEL_HEIGHT - 25, WIDTH - 2 * MARGIN
    draw.rectangle((MARGIN, above, MARGIN + width, below), outline="grey")
    draw.text((MARGIN, top + 10), title if points else f"{title}: none", fill=colour)
    if not points:
        return
    low, high = min(value for _, value in points), max(value for _, value in points)
    line = [(MARGIN + width * x, below - (below - above) * (y - low) / ((high - low) or 1)) for x, y in points]
    draw.line(line, fill=colour, width=2)
    for value, y in ((high, above), (low, below)):
        draw.text((5, y - 6), f"{value:.2f}", fill=colour)
