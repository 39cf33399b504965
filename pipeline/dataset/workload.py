"""The image workload: read a shard, upscale its pictures, write them and one row for each, whatever is wrong with it."""

from __future__ import annotations

import hashlib
import tempfile
import threading
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

import torch

from pipeline.config import ImagesConfig
from pipeline.dataset.ahead import read_ahead
from pipeline.dataset.containers import VALUE_BYTES
from pipeline.dataset.encoding import write_picture
from pipeline.dataset.enlarge import check, enlarge_many, target_size
from pipeline.dataset.images import read_picture
from pipeline.dataset.index import Row, write_rows
from pipeline.dataset.known import KnownResults
from pipeline.dataset.listing import is_side_file
from pipeline.dataset.outputs import open_output
from pipeline.dataset.pending import WINDOW_PICTURES, Job, Results, as_done, content_key, windows
from pipeline.dataset.picture import Encoding, Limits, PictureError, Pixels
from pipeline.dataset.reading import NoPictureError
from pipeline.dataset.shards import read_list
from pipeline.dataset.sources import Item, Source, open_source
from pipeline.dataset.streamed import enlarge_to_file, is_large
from pipeline.errors import MediaError
from pipeline.stages import PULSE_S, ahead, in_parallel, pulsed
from pipeline.storage import Store
from pipeline.units import Unit, digest
from swinir.device import choose_device
from swinir.spec import ModelSpec
from swinir.upscaler import Upscaler

READ_THREADS = 16
READ_AHEAD_BYTES = 128 << 20
CODEC_THREADS = 4
GPU_BATCH = 8
ROWS = "rows"
QUEUE_BYTES = 256 << 20  # of pixels that wait between two stages, or one picture
UNIT_BYTES = 4 * QUEUE_BYTES  # of two queues, of files on their way in and out, and of what is worked at
PARTS = 16  # of a shard that a picture kills; each costs far less than another death
EMPTY: Mapping[int, str] = MappingProxyType({})


@dataclass(frozen=True)
class ShardWorkload:
    """All that a worker needs to upscale any shard of one archive. ``work`` holds lists and rows, ``out`` the pictures."""

    source: str
    config: ImagesConfig
    model: ModelSpec
    work: Store
    out: Store
    row_files: tuple[str, ...] = ()  # in ``work``, of shards as they were before: their results are copied where they fit

    def open(self) -> ShardRunner:
        # Several pictures at once keep a GPU busy; on a CPU they only fall out of its cache.
        batch = GPU_BATCH if choose_device(self.config.device).type == "cuda" else 1
        return ShardRunner(self, Upscaler.from_spec(self.model, self.config.device, batch=batch), batch)

    def split(self, unit: Unit) -> list[Unit]:
        """Parts, down to one picture: which one kills its process is found, and what it takes along is done again."""
        spec, num = unit.spec, min(PARTS, unit.num_items)
        bounds = [spec["start"] + unit.num_items * i // num for i in range(num + 1)] if num > 1 else []
        return [shard_unit(spec["run"], spec["list"], start, stop, crashed_of(unit)) for start, stop in pairwise(bounds)]


def shard_unit(run: str, list_key: str, start: int, stop: int, crashed: Mapping[int, str] = EMPTY) -> Unit:
    """Items [start, stop) of a stored list, whose key names its content, under the settings that ``run`` is the digest of.

    ``crashed`` are numbers of items that are not to be touched, each with what happened when they were.
    """
    spec: dict[str, Any] = {"run": run, "list": list_key, "start": start, "stop": stop}
    left = {str(number): reason for number, reason in sorted(crashed.items()) if start <= number < stop}
    # The reasons are another machine's words: what is computed does not depend on them.
    return Unit(digest(spec | {"crashed": list(left)} if left else spec), stop - start, spec | {"crashed": left})


def crashed_of(unit: Unit) -> dict[int, str]:
    return {int(number): reason for number, reason in unit.spec["crashed"].items()}


class ShardRunner:
    """Runs shards in one process; reading, decoding, the model and encoding overlap."""

    def __init__(self, workload: ShardWorkload, upscaler: Upscaler, batch: int = 1) -> None:
        self._job, self._upscaler, self._batch = workload, upscaler, batch
        self._model_lock = threading.Lock()
        self._large_lock = threading.Lock()  # of one picture that is streamed, for whichever unit
        self._num_bands = 0  # that came out of the model, for whichever unit
        config = workload.config
        self._limits = Limits(config.bomb_pixels, config.min_side, config.max_pixels, config.animated)
        self._encoding = Encoding(config.format, config.png_level, config.quality, config.subsampling)
        self._known = KnownResults(workload.work, workload.out, workload.row_files)
        self._source: Source = open_source(workload.source, config.image_column, config.url_column)

    def run(self, unit: Unit, attempt: str) -> Generator[int, None, dict[str, Any]]:
        """Yields pictures done; returns where their rows are, and what became of them.

        Names and bytes do not depend on the attempt: of two attempts at once, both write the same.
        """
        yield 0
        shard, start = unit.spec["list"], unit.spec["start"]
        items = dict(enumerate(read_list(self._job.work, shard)[start : unit.spec["stop"]], start))
        rows: list[Row] = []
        with ExitStack() as stack:
            stack.callback(self._known.close)
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="swinir-")))
            pool = stack.enter_context(ThreadPoolExecutor(CODEC_THREADS))
            output = stack.enter_context(open_output(self._job.config.output, self._job.out, unit.id, scratch))
            results = Results(scratch)
            decoded = stack.enter_context(
                closing(
                    ahead(
                        self._decoded(items, PurePosixPath(shard).stem, crashed_of(unit), pool, scratch),
                        2 * WINDOW_PICTURES,
                        lambda job: job.num_bytes,
                        QUEUE_BYTES,
                    )
                )
            )
            enlarged = stack.enter_context(
                closing(ahead(self._enlarged(decoded, scratch), WINDOW_PICTURES, lambda job: job.num_bytes, QUEUE_BYTES))
            )
            # The tasks in the pool wait for nothing, so decoding and encoding may share it.
            encoded = in_parallel(pool, self._encoded, enlarged, CODEC_THREADS)
            num_known, num_bands = 0, self._num_bands
            for job in stack.enter_context(closing(pulsed(encoded, 1, PULSE_S))):
                if job is None:
                    # A large picture takes longer than a worker may be silent, but bands of it come.
                    if self._num_bands != num_bands:
                        num_bands = self._num_bands
                        yield len(rows)
                    continue
                row, data = results.complete(job)
                num_known += job.is_known
                rows.append(replace(row, output=output.add(row, data)) if row.status == "ok" else row)
                yield len(rows)
            files = output.close()
            path = scratch / "rows.parquet"
            write_rows(path, sorted(rows, key=lambda row: row.key))
            key = f"{ROWS}/{unit.id}.parquet"
            self._job.work.upload(path, key)
        counts = dict(sorted(Counter(row.status for row in rows).items()))
        return {"rows": key, "counts": counts, "files": files, "num_known": num_known}

    def _decoded(
        self, items: dict[int, Item], shard: str, crashed: dict[int, str], pool: ThreadPoolExecutor, scratch: Path
    ) -> Iterator[Job]:
        """Every numbered item in order; of those with equal bytes only the first is decoded, and of ``crashed`` none.

        A result that is known already is put into ``scratch``.
        """
        seen: set[tuple[str, bool]] = set()

        def jobs() -> Iterator[tuple[Row, bytes | None]]:
            wanted = [item for number, item in items.items() if number not in crashed]
            read = read_ahead(self._source, wanted, READ_THREADS, READ_AHEAD_BYTES)
            with closing(read):
                for number, item in items.items():
                    row = Row(key=item.key, shard=shard, row=number, model=self._job.model.name)
                    if number in crashed:
                        yield replace(row, status="crashed", error=crashed[number]), None
                        continue
                    _, data = next(read)
                    if isinstance(data, MediaError):
                        status = "skipped" if isinstance(data, NoPictureError) else "read_error"
                        yield replace(row, status=status, error=str(data)), None
                        continue
                    row = replace(row, source_sha256=hashlib.sha256(data).hexdigest(), source_bytes=len(data))
                    yield row, None if content_key(row) in seen else data
                    seen.add(content_key(row))

        return in_parallel(pool, lambda job: self._read(*job, scratch), jobs(), CODEC_THREADS)

    def _read(self, row: Row, data: bytes | None, scratch: Path) -> Job:
        if row.status or data is None:
            return Job(row)
        if known := self._known.fetch(row.source_sha256, scratch / row.source_sha256):
            return Job(replace(known, key=row.key, shard=row.shard, row=row.row), is_known=True)
        if is_large(data, self._upscaler.scale, self._job.config):
            return Job(row, source=data)
        return self._decode(row, data)

    def _decode(self, row: Row, data: bytes) -> Job:
        try:
            picture = read_picture(data, self._limits)
        except PictureError as error:
            return Job(replace(row, status="skipped" if is_side_file(row.key) else error.status, error=str(error)))
        height, width = picture.pixels.shape[:2]
        size = target_size(width, height, self._upscaler.scale, self._job.config)
        return Job(replace(row, width=width, height=height, format=picture.format), picture, size)

    def _enlarged(self, jobs: Iterator[Job], scratch: Path) -> Iterator[Job]:
        """The same jobs in the same order; those of a window that have one shape and depth go through the model together."""
        for window in windows(jobs):
            for job in window:
                if job.source:
                    with self._large_lock:
                        self._stream(job, scratch)
            groups: dict[object, list[tuple[Job, Pixels]]] = {}
            for job in window:
                for pixels in job.picture.frames if job.picture else ():
                    groups.setdefault((pixels.dtype, pixels.shape, job.size), []).append((job, pixels))
            for group in groups.values():
                for start in range(0, len(group), self._batch):
                    self._enlarge(group[start : start + self._batch])
            yield from window

    def _enlarge(self, group: list[tuple[Job, Pixels]]) -> None:
        pictures = [pixels for _, pixels in group]
        try:
            with self._model_lock, threads_for(self._upscaler):
                large = enlarge_many(self._upscaler, pictures, group[0][0].size, self._count_band)
        except (MemoryError, FloatingPointError) as error:
            if len(group) > 1:
                for one in group:
                    self._enlarge([one])
                return
            job, _ = group[0]
            job.row = replace(job.row, status="model_error", error=" ".join(str(error).split()))
            return
        for (job, _), pixels in zip(group, large, strict=True):
            job.large.append(pixels)

    def _stream(self, job: Job, scratch: Path) -> None:
        """All that happens to a large picture; its result lies in ``scratch`` under the digest of its source."""
        found = self._decode(job.row, job.source)
        job.row, job.source = found.row, b""
        if found.picture is None:
            return
        path = scratch / job.row.source_sha256
        try:
            with self._model_lock, threads_for(self._upscaler):
                ending, *figures = enlarge_to_file(
                    self._upscaler, found.picture, found.size, self._encoding, path, self._count_band
                )
        except (MemoryError, FloatingPointError) as error:
            job.row = replace(job.row, status="model_error", error=" ".join(str(error).split()))
            return
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        job.row = as_done(job.row, sha256, path.stat().st_size, found.size, ending, figures)
        if self._job.config.output == "parquet" and path.stat().st_size > VALUE_BYTES:
            reason = f"the result has {path.stat().st_size} bytes, more than a value in Parquet can; use another --output"
            job.row = replace(found.row, status="too_large", error=reason)

    def _count_band(self) -> None:
        self._num_bands += 1

    def _encoded(self, job: Job) -> Job:
        if job.picture is None or job.row.status:
            return job
        checks = [check(*pair) for pair in zip(job.picture.frames, job.large, strict=True)]
        first, *more = job.large
        job.data, ending = write_picture(job.picture, first, self._encoding, more)
        figures = min(psnr_db for psnr_db, _ in checks), max(drift for _, drift in checks)
        sha256 = hashlib.sha256(job.data).hexdigest()
        job.row = as_done(job.row, sha256, len(job.data), job.size, ending, figures)
        job.picture, job.large = None, []
        return job


@contextmanager
def threads_for(upscaler: Upscaler) -> Iterator[None]:
    """One thread of PyTorch's for a baseline, whose sums are so short that two wait for each other more than they work."""
    num_threads = torch.get_num_threads()
    if not upscaler.in_chans:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)
