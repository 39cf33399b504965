"""Pictures on their way through a shard: what is known of each, which go together, and what came of equal ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.dataset.index import Row
from pipeline.dataset.listing import is_side_file
from pipeline.dataset.picture import Picture, Pixels

WINDOW_PICTURES = 32  # that wait for others of their size,
WINDOW_SAMPLES = 128 << 20  # as long as they are not large: of what they become


@dataclass(slots=True)
class Job:
    """One picture on its way. Without ``picture`` nothing is to be computed: something is wrong, or there is a result."""

    row: Row
    picture: Picture | None = None
    size: tuple[int, int] = (0, 0)
    large: list[Pixels] = field(default_factory=list, repr=False)
    data: bytes = field(default=b"", repr=False)  # of the result
    source: bytes = field(default=b"", repr=False)  # of a picture that is to go by itself, from file to file
    is_known: bool = False  # the result, from an earlier run

    @property
    def num_samples(self) -> int:
        """Of the result."""
        if self.source:
            return WINDOW_SAMPLES
        frames = self.picture.frames if self.picture else ()
        return sum(self.size[0] * self.size[1] * frame.shape[2] for frame in frames)

    @property
    def num_bytes(self) -> int:
        """Of its pixels."""
        before = self.picture.frames if self.picture else ()
        return len(self.source) + sum(pixels.nbytes for pixels in (*before, *self.large))


def as_done(row: Row, sha256: str, num_bytes: int, size: tuple[int, int], ending: str, figures: Sequence[float]) -> Row:
    """The row of a picture whose result is of ``size`` (width, height), with the two figures of its comparison."""
    return replace(
        row,
        status="ok",
        output_sha256=sha256,
        output_bytes=num_bytes,
        output_width=size[0],
        output_height=size[1],
        output_format=ending.removeprefix("."),
        psnr_reduced_db=figures[0],
        colour_drift=figures[1],
    )


def windows(jobs: Iterator[Job]) -> Iterator[list[Job]]:
    """Runs of jobs, some pictures long or a few large ones."""
    window: list[Job] = []
    num_samples = 0
    for job in jobs:
        window.append(job)
        num_samples += job.num_samples
        if len(window) >= WINDOW_PICTURES or num_samples >= WINDOW_SAMPLES:
            yield window
            window, num_samples = [], 0
    yield window


def content_key(row: Row) -> tuple[str, bool]:
    """What rows of one outcome have in common: the bytes, and whether somebody expects a picture in them."""
    return row.source_sha256, is_side_file(row.key)


class Results:
    """What came of the bytes seen so far, so that equal ones cost nothing."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._jobs: dict[tuple[str, bool], tuple[Row, bool]] = {}

    def complete(self, job: Job) -> tuple[Row, bytes | Path]:
        """The row of a finished job and its encoded picture, or the file that it lies in; of a copy, those of the first.

        A copy of what is known is known.
        """
        row, sha = job.row, job.row.source_sha256
        if not row.status:
            first, job.is_known = self._jobs[content_key(row)]
            return replace(first, key=row.key, row=row.row), self._scratch / sha
        if sha:
            self._jobs[content_key(row)] = row, job.is_known
        if job.data:
            (self._scratch / sha).write_bytes(job.data)
        return row, job.data or self._scratch / sha
