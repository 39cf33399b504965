"""The video workload: decode a segment, upscale, encode, verify, store; one model for the units of one worker."""

from __future__ import annotations

import base64
import hashlib
import tempfile
import threading
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.stages import ahead, depth_for
from pipeline.storage import Store, open_input
from pipeline.units import Unit
from pipeline.video.encode import SegmentEncoder, verify_segment
from pipeline.video.packets import read_packets, reorder_depth
from pipeline.video.plan import VideoPlan
from pipeline.video.probe import VideoInfo
from pipeline.video.reader import read_range
from pipeline.video.timeline import Timeline
from swinir.colour import planes_to_rgb, rgb_to_planes
from swinir.spec import ModelSpec
from swinir.upscaler import Upscaler

DEVICE_PIXELS = 64 << 20  # larger pictures stay in host memory, and only their tiles go to the device


@dataclass(frozen=True)
class SegmentWorkload:
    """All that a worker needs to upscale any segment of one video."""

    source: str
    info: VideoInfo
    timeline: Timeline
    plan: VideoPlan
    model: ModelSpec
    device: str
    store: Store

    def open(self) -> SegmentRunner:
        return SegmentRunner(self, Upscaler.from_spec(self.model, self.device))

    def split(self, unit: Unit) -> list[Unit]:
        return []  # part of a segment is of no use


class SegmentRunner:
    """Runs segments in one process; two at a time overlap everywhere but in the model."""

    def __init__(self, workload: SegmentWorkload, upscaler: Upscaler) -> None:
        self._job, self._upscaler = workload, upscaler
        self._model_lock = threading.Lock()

    def run(self, unit: Unit, attempt: str) -> Generator[int, None, dict[str, Any]]:
        """Yields frames done; returns where the packets are and what they are."""
        job = self._job
        start, stop = unit.spec["start"], unit.spec["stop"]
        pts = [int(t - job.timeline.pts[start]) for t in job.timeline.pts[start:stop]]
        with tempfile.TemporaryDirectory(prefix="swinir-") as scratch:
            path = Path(scratch) / "segment.arrow"
            encoder = SegmentEncoder(path, job.plan.encode, job.plan.target_layout)
            try:
                # Silence means a stall, so opening and seeking say that they have begun.
                yield 0
                with closing(ahead(self._upscaled(start, stop), self._depth())) as frames:
                    for done, (index, planes) in enumerate(frames, start=1):
                        encoder.write(planes, pts[index - start])
                        yield done
                extradata = encoder.finish()
            except BaseException:
                encoder.abandon()
                raise
            verify_segment(path, job.plan.encode, extradata, pts)
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
                "extradata": base64.b64encode(extradata).decode(),
                "reorder_depth": reorder_depth([packet.pts for packet in read_packets(path)]),
            }

    def _upscaled(self, start: int, stop: int) -> Iterator[tuple[int, list[Tensor]]]:
        job = self._job
        read = read_range(
            partial(open_input, job.source), job.source, job.info, job.timeline, job.plan.source_layout, start, stop
        )
        with closing(ahead(read, self._depth())) as frames:
            last: tuple[list[Tensor], list[Tensor]] | None = None
            for index, planes in frames:
                if last is None or last[0] is not planes:  # a repeated frame is upscaled once
                    last = planes, self._upscale(planes)
                yield index, last[1]

    def _upscale(self, planes: list[Tensor]) -> list[Tensor]:
        encode = self._job.plan.encode
        with self._model_lock, torch.inference_mode():
            small = encode.width * encode.height <= DEVICE_PIXELS
            device = self._upscaler.device if small else torch.device("cpu")
            smooth = self._job.model.weights is not None
            rgb = planes_to_rgb([plane.to(device) for plane in planes], self._job.plan.source_layout, smooth)
            rgb = self._upscaler.upscale(rgb[None])[0]
            return [plane.cpu() for plane in rgb_to_planes(rgb, self._job.plan.target_layout)]

    def _depth(self) -> int:
        encode = self._job.plan.encode
        return depth_for(encode.width * encode.height * 3)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
