"""Results that hold pictures and nothing else, joined from the segments and read back: a GIF, or one PNG file per frame."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import OutputError
from pipeline.video.destination import Destination, FrameFiles
from pipeline.video.gif import loops_of, start_ticks, verify_gif, write_gif
from pipeline.video.packets import StoredPacket
from pipeline.video.plan import EncodeSpec
from pipeline.video.probe import open_media
from pipeline.video.reader import decode
from pipeline.video.sequence import open_input
from pipeline.video.timeline import Timeline


def write_pictures(
    made: Path,
    destination: Destination,
    source: str | BinaryIO,
    packets: Iterable[StoredPacket],
    timeline: Timeline,
    spec: EncodeSpec,
) -> None:
    """A new file or folder ``made``, which ``destination`` then publishes."""
    if isinstance(destination, FrameFiles):
        write_stills(made, destination, packets, timeline, spec)
        return
    with made.open("wb") as out:
        write_gif(out, spec, packets, start_ticks(timeline, spec.time_base), loops_of(source))


def verify_pictures(made: Path, name: str, timeline: Timeline, spec: EncodeSpec) -> None:
    """Read back all that was written: every frame decodes, at its time. OutputError where that is not so."""
    if made.is_dir():
        verify_stills(made, name, timeline, spec)
    else:
        verify_gif(made, name, start_ticks(timeline, spec.time_base))


def write_stills(
    folder: Path, destination: FrameFiles, packets: Iterable[StoredPacket], timeline: Timeline, spec: EncodeSpec
) -> None:
    """Every packet as a file of its own, and the table: file, start and duration in seconds as fractions."""
    folder.mkdir()
    time_base, first = Fraction(spec.time_base), int(timeline.pts[0])
    rows: list[tuple[object, ...]] = [("file", "start_s", "duration_s")]
    shown = zip(timeline.pts.tolist(), timeline.duration.tolist(), strict=True)
    for number, (packet, (pts, duration)) in enumerate(zip(packets, shown, strict=True), start=1):
        name = destination.image_name(number)
        (folder / name).write_bytes(packet.data)
        rows.append((name, (pts - first) * time_base, duration * time_base))
    with (folder / destination.times_name).open("w", encoding="utf-8", errors="surrogateescape", newline="") as table:
        csv.writer(table, lineterminator="\n").writerows(rows)
    os.sync()  # the folder is then renamed, and must not be there with less in it after a power cut


def verify_stills(folder: Path, name: str, timeline: Timeline, spec: EncodeSpec) -> None:
    with open_input(str(folder), None) as media, open_media(media, name) as container:
        video = container.streams.video[0]
        assert video.time_base is not None
        frames = [((frame.pts or 0) * video.time_base, frame.width, frame.height) for frame in decode(container, video)]
    planned = [int(pts - timeline.pts[0]) * Fraction(spec.time_base) for pts in timeline.pts]
    if frames != [(time, spec.width, spec.height) for time in planned]:
        raise OutputError(
            f"{name}: {len(frames)} of {len(timeline)} images can be read back, or with other times or sizes; run again"
        )


def size_bytes(made: Path) -> int:
    """Of a file, or of all files in a folder."""
    files = made.iterdir() if made.is_dir() else [made]
    return sum(file.stat().st_size for file in files)
