"""Curves as a picture, and the log of a training run that they are drawn from."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

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


def keep_log(folder: Path, last_step: int) -> None:
    """Leave only whole rows up to a step in the log: what a kill cut short, or logged and did not save, comes again."""
    path = folder / "log.jsonl"
    if not path.exists():
        return
    rows = [row for row in read_log(folder) if row["step"] <= last_step]
    part = path.with_suffix(".part")
    part.write_text("".join(json.dumps(row) + "\n" for row in rows))
    os.replace(part, path)


class Line(NamedTuple):
    """One curve; ``points`` are (part of the way, value)."""

    title: str
    colour: str
    points: list[tuple[float, float]]


def plot_curves(rows: Sequence[Row], path: Path) -> None:
    """Each of ``CURVES`` over the steps in a panel of its own, scaled to its range, as PNG; rows without it are passed over."""
    last = max(row["step"] for row in rows)
    panels = []
    for name, title, colour in CURVES:
        points = [(row["step"] / last, row[name]) for row in rows if not math.isnan(row.get(name, math.nan))]
        panels.append([Line(title, colour, points)])
    plot_panels(panels, f"step {last:.0f}", path)


def plot_panels(panels: Sequence[Sequence[Line]], last: str, path: Path) -> None:
    """Panels below each other as PNG, each scaled to the range of all its lines; ``last`` says what is at the right end."""
    page = Image.new("RGB", (WIDTH, PANEL_HEIGHT * len(panels)), "white")
    for number, lines in enumerate(panels):
        _plot(ImageDraw.Draw(page), lines, PANEL_HEIGHT * number)
    ImageDraw.Draw(page).text((WIDTH - 2 * MARGIN, page.height - 20), last, fill="black")
    page.save(path)


def _plot(draw: ImageDraw.ImageDraw, lines: Sequence[Line], top: int) -> None:
    above, below, width = top + 30, top + PANEL_HEIGHT - 25, WIDTH - 2 * MARGIN
    draw.rectangle((MARGIN, above, MARGIN + width, below), outline="grey")
    left = float(MARGIN)
    for title, colour, points in lines:
        text = title if points else f"{title}: none"
        draw.text((left, top + 10), text, fill=colour)
        left += draw.textlength(text) + 20
    values = [value for line in lines for _, value in line.points]
    if not values:
        return
    low, high = min(values), max(values)
    for _, colour, points in lines:
        line = [(MARGIN + width * x, below - (below - above) * (y - low) / ((high - low) or 1)) for x, y in points]
        draw.line(line, fill=colour, width=2)
    for value, y in ((high, above), (low, below)):
        draw.text((5, y - 6), f"{value:.2f}", fill=lines[0].colour)
