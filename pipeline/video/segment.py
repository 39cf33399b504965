"""The video workload: decode a segment, upscale, encode, verify, store; one model for the units of one worker."""

from __future__ import annotations

import base64
import hashlib
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.stages import PULSE_S, ahead, depth_for, pulsed
from pipeline.storage import Store, local_path
from pipeline.units import Unit
from pipeline.video.encode import SegmentEncoder, verify_segment
from pipeline.video.fields import pictures
from pipeline.video.gif import GifEncoder, verify_gif_segment
from pipeline.video.info import VideoInfo
from pipeline.video.packets import read_packets, reorder_depth
from pipeline.video.plan import VideoPlan
from pipeline.video.reader import read_range
from pipeline.video.sequence import open_input
from pipeline.video.timeline import Timeline
from pipeline.video.turn import turned
from swinir.colour import alpha_of, planes_to_rgb, rgb_to_planes
from swinir.device import place_for
from swinir.gpu.transfer import Beside, fetching, sent
from swinir.resize import resample, resize
from swinir.reuse import TileMemory
from swinir.spec import ModelSpec
from swinir.upscaler import Upscaler


@dataclass(frozen=True)
class SegmentWorkload:
    """All that a worker needs to upscale any segment of one video."""

    source: str
    rate: str | None  # of an image sequence
    info: VideoInfo
    timeline: Timeline
    plan: VideoPlan
    model: ModelSpec
    device: str
    reuse_within: float | None
    store: Store

    def open(self) -> SegmentRunner:
        return SegmentRunner(self, Upscaler.from_spec(self.model, self.device))

    def split(self, unit: Unit) -> list[Unit]:
        return []  # part of a segment is of no use


class SegmentRunner:
    """Runs segments in one process; two at a time overlap everywhere but in the model."""

    def __init__(self, workload: SegmentWorkload, upscaler: Upscaler) -> None:
        self._job, self._upscaler = workload, upscaler
        self._pts = pictures(workload.timeline, workload.plan.deinterlace).pts
        self._model_lock = threading.Lock()
        self._beside = Beside(upscaler.device)
        # On a CPU the same: PyTorch has all its cores in either.
        self._colour_lock = threading.Lock() if upscaler.device.type == "cuda" else self._model_lock

    def run(self, unit: Unit, attempt: str) -> Generator[int, None, dict[str, Any]]:
        """Yields frames done; returns where the packets are and what they are."""
        job = self._job
        start, stop = unit.spec["start"], unit.spec["stop"]
        pts = [int(t - self._pts[start]) for t in self._pts[start:stop]]
        is_gif = job.plan.encode.codec == "gif"
        # What has no weights costs less than the comparison.
        reuses = job.reuse_within is not None and self._upscaler.in_chans
        memory = TileMemory(job.reuse_within or 0.0) if reuses else None
        with scratch_beside(job.store) as scratch:
            path = scratch / "segment.arrow"
            encoder = (GifEncoder if is_gif else SegmentEncoder)(path, job.plan.encode, job.plan.target_layout)
            num_done = num_passed = num_told = 0

            def passing() -> None:
                nonlocal num_passed
                num_passed += 1

            try:
                # Silence means a stall, so opening and seeking say that they have begun.
                yield num_done
                upscaled = self._upscaled(start, stop, memory, passing)
                with closing(pulsed(upscaled, self._depth(), PULSE_S)) as frames:
                    for frame in frames:
                        if frame:
                            encoder.write(frame[1], pts[frame[0] - start])
                            num_done += 1
                        elif num_passed == num_told:
                            continue
                        # The way to the first frame is long where none can be sought.
                        num_told = num_passed
                        yield num_done
                extradata = encoder.finish()
            except BaseException:
                encoder.abandon()
                raise
            (verify_gif_segment if is_gif else verify_segment)(path, job.plan.encode, extradata, pts)
            yield stop - start
            key = f"segments/{unit.id}.{attempt}.arrow"
            job.store.upload(path, key)
            return {
                "key": key,
                "index": unit.spec["index"],
                "num_frames": stop - start,
                "size_bytes": path.stat().st_size,
                "sha256": _sha256(path),
                "precision": self._upscaler.precision,
                "tile": self._upscaler.tile,
                "nonfinite_tiles": self._upscaler.nonfinite_tiles,
                "tiles_reused": memory.num_reused if memory else 0,
                "extradata": base64.b64encode(extradata).decode(),
                "reorder_depth": reorder_depth([packet.pts for packet in read_packets(path)]),
            }

    def _upscaled(
        self, start: int, stop: int, memory: TileMemory | None, passing: Callable[[], None]
    ) -> Iterator[tuple[int, list[Tensor]]]:
        job = self._job
        read = read_range(
            partial(open_input, job.source, job.rate),
            job.source,
            job.info,
            job.timeline,
            job.plan.source_layout,
            start,
            stop,
            job.plan.deinterlace,
            passing,
        )
        with closing(ahead(read, self._depth())) as frames:
            last: tuple[list[Tensor], list[Tensor]] | None = None
            for index, planes in frames:
                if last is None or not self._same(last[0], planes):
                    last = planes, self._upscale(planes, index, memory)
                yield index, last[1]

    def _same(self, before: list[Tensor], planes: list[Tensor]) -> bool:
        """Whether a frame needs no work at all: a damaged one repeated, or the one before bit for bit."""
        if before is planes:
            return True
        dithered = self._job.plan.target_layout.depth < self._job.plan.source_layout.depth  # anew for each frame
        return self._job.reuse_within is not None and not dithered and all(map(torch.equal, before, planes))

    def _upscale(self, planes: list[Tensor], index: int, memory: TileMemory | None) -> list[Tensor]:
        encode, source, target = self._job.plan.encode, self._job.plan.source_layout, self._job.plan.target_layout
        place, beside = place_for(encode.width * encode.height, self._upscaler.device), self._beside
        with self._colour_lock, torch.inference_mode(), beside.current():
            planes = sent(planes, place)
            small = planes_to_rgb(planes, source)
        with self._model_lock, torch.inference_mode():
            large = beside.taken_back(self._upscaler.upscale(beside.given(small)[None], memory)[0])
        with self._colour_lock, torch.inference_mode(), beside.current():
            rgb = resample(turned(large, encode.turn), encode.height, encode.width)
            alpha = alpha_of(planes, source) if target.alpha else None
            if alpha is not None:
                alpha = resample(turned(self._larger_alpha(alpha), encode.turn), encode.height, encode.width)
            dither = index if target.depth < source.depth else None
            made = fetching(rgb_to_planes(rgb, target, alpha, dither))
        return made()

    def _larger_alpha(self, alpha: Tensor) -> Tensor:
        """(H, W), ``scale`` times larger; bicubic beside a network, which would draw structure of pictures into a mask."""
        if self._upscaler.in_chans:
            return resize(alpha, self._upscaler.scale)
        return self._upscaler.upscale(alpha[None, None])[0, 0]

    def _depth(self) -> int:
        encode = self._job.plan.encode
        return depth_for(encode.width * encode.height * 3)


@contextmanager
def scratch_beside(store: Store) -> Iterator[Path]:
    """A folder that a worker which is killed leaves in a local store, with which it goes, and not among the system's."""
    beside = local_path(store.url)
    if beside is not None:
        Path(beside).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="scratch-", dir=beside) as folder:
        yield Path(folder)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
