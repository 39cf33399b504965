"""Which files an image sequence consists of, in which order, and how long each is shown."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise, zip_longest
from pathlib import Path

from pipeline import inputs
from pipeline.config import MAX_TICKS
from pipeline.errors import MediaError
from pipeline.inputs import SourceIdentity
from pipeline.storage import Store, local_path, normal_url

# What QuickTime has a name for goes to FFmpeg's decoder as it is; of the others FFmpeg's picture does.
TAGS = {".png": b"png ", ".jpg": b"jpeg", ".tif": b"tiff", ".tga": b"tga ", ".dpx": b"dpx ", ".bmp": b"", ".webp": b""}
SAME_KIND = {".jpeg": ".jpg", ".tiff": ".tif"}
PLACE = re.compile(r"%(?:0(\d+))?d")  # of the number in a pattern, as in printf
TIMES_NAME = "times.csv"


@dataclass(frozen=True, slots=True)
class Sequence:
    """The images in order, ``suffix`` the one ending they share, and the table that lies with them and names any of them."""

    images: tuple[SourceIdentity, ...]
    suffix: str
    times: SourceIdentity | None


def is_sequence(url: str) -> bool:
    """Whether ``url`` names a folder or a pattern of images, such as ``frames/`` or ``frames/%06d.png``."""
    path = local_path(url)
    if path is not None and Path(path).exists():
        return Path(path).is_dir()
    return url.endswith("/") or pattern_of(url) is not None


def pattern_of(url: str) -> re.Match[str] | None:
    """Where the number stands in a name such as ``%06d.png``."""
    name = url.rpartition("/")[2]
    return PLACE.search(name) if kind_of(name) else None


def kind_of(name: str) -> str | None:
    """The ending of an image's name, in its usual spelling; None where it is no image."""
    ending = f".{name.rpartition('.')[2].lower()}"
    ending = SAME_KIND.get(ending, ending)
    return ending if ending in TAGS and not name.startswith(".") else None


def natural(name: str) -> list[str | int]:
    """A key that puts frame 10 after frame 9."""
    return [int(part) if part.isdecimal() else part.casefold() for part in re.split(r"(\d+)", name)]


def file_name(url: str) -> str:
    return url.rpartition("/")[2]


def find_sequence(url: str) -> Sequence:
    """The images that ``url`` names. Raises MediaError where there are none, a number is missing, or kinds are mixed."""
    whole = pattern_of(url) is None
    folder = url if whole else url.rpartition("/")[0] or "."
    files = {file_name(entry.url): entry for entry in inputs.identify_all(folder)}
    names = sorted(filter(kind_of, files), key=lambda name: (natural(name), name)) if whole else numbered(url, files)
    if not names:
        raise MediaError(f"{url}: no images are there; known are {', '.join([*TAGS, *SAME_KIND])}")
    kinds = sorted({kind_of(name) or "" for name in names})
    if len(kinds) > 1:
        raise MediaError(
            f"{url}: holds images of several kinds ({', '.join(kinds)}); name one as {url.rstrip('/')}/%d{kinds[0]}"
        )
    empty = next((name for name in names if not files[name].size_bytes), None)
    if empty:
        raise MediaError(f"{url}: {empty} is empty")
    listed = {entry: [file for file, _ in read_rows(entry)] for name, entry in files.items() if name.endswith(TIMES_NAME)}
    of_these = [table for table, files_in_it in listed.items() if not set(names).isdisjoint(files_in_it)]
    table = min(of_these, key=lambda table: (listed[table] != names, table.url), default=None)
    return Sequence(tuple(files[name] for name in names), kinds[0], table)


def numbered(url: str, files: dict[str, SourceIdentity]) -> list[str]:
    """The names that a pattern makes of consecutive numbers, from the first that exists."""
    name = file_name(normal_url(url))
    place = PLACE.search(name)
    assert place
    before, after, width = name[: place.start()], name[place.end() :], int(place[1] or 0)
    found = sorted(
        int(match[1])
        for match in (re.fullmatch(re.escape(before) + r"(\d+)" + re.escape(after), file) for file in files)
        if match and match[1] == f"{int(match[1]):0{width}d}"
    )
    for last, following in pairwise(found):
        if following != last + 1:
            missing = f"{before}{last + 1:0{width}d}{after}"
            raise MediaError(
                f"{url}: {missing} is missing ({len(found)} images from {found[0]} to {found[-1]}); put it there, or name the "
                "folder to take its images as they are"
            )
    return [f"{before}{number:0{width}d}{after}" for number in found]


def read_rows(table: SourceIdentity) -> list[tuple[str, str]]:
    """The name of each image and how long it is shown, as written; none where the file is no table."""
    folder, name = table.url.rsplit("/", 1)
    try:
        rows = csv.reader(io.StringIO(Store(folder).read(name).decode(errors="surrogateescape"), newline=""))
        return [(row[0], row[2]) for row in list(rows)[1:] if len(row) > 2]
    except (ValueError, csv.Error):
        return []


def ticks_of(images: Iterable[SourceIdentity], table: SourceIdentity) -> tuple[list[int], int]:
    """How long each image is shown, and how many of these ticks are a second. MediaError where the table cannot say so."""
    shown = []
    for number, (row, image) in enumerate(zip_longest(read_rows(table), images), start=1):
        listed, written = row or ("missing", "")
        there = file_name(image.url) if image else "missing"
        if listed != there:
            raise MediaError(
                f"{table.url}: image {number} is {listed} in it, and {there} among the images; make them agree, or give --rate"
            )
        shown.append(seconds_of(written))
        if not shown[-1]:
            raise MediaError(f"{table.url}: {listed} lasts {written!r}; write seconds above 0, such as 1001/24000")
    ticks_per_second = math.lcm(*(seconds.denominator for seconds in shown))
    ticks = [int(seconds * ticks_per_second) for seconds in shown]
    if max(ticks_per_second, *ticks) > MAX_TICKS:
        raise MediaError(f"{table.url}: durations of more digits than a clock counts; write fractions such as 1001/24000")
    return ticks, ticks_per_second


def seconds_of(written: str) -> Fraction:
    """0 where it is no positive number."""
    try:
        return max(Fraction(written), Fraction(0))
    except (ValueError, ZeroDivisionError):
        return Fraction(0)
