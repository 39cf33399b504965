"""What is known of a video job before its first frame is upscaled: what becomes of the source, and what that takes."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pipeline.config import WEIGHTS_SETTINGS, VideoConfig
from pipeline.errors import ConfigError
from pipeline.report import Listener, software_versions
from pipeline.storage import Store, local_path
from pipeline.units import digest
from pipeline.video.destination import (
    PICTURES_ONLY,
    check_places,
    destination_of,
    format_of,
    pictures_only,
)
from pipeline.video.drymux import plan_streams
from pipeline.video.encode import check_encoder
from pipeline.video.fields import pictures
from pipeline.video.gif import check_gif
from pipeline.video.info import VideoInfo
from pipeline.video.numbering import is_sequence
from pipeline.video.plan import FORMAT_VERSION, VideoPlan, plan_video
from pipeline.video.probe import probe
from pipeline.video.sequence import SequenceFile, identify, open_input
from pipeline.video.streams import StreamPlan, check_codec, wants_global_header
from pipeline.video.timeline import Timeline
from swinir.device import choose_device, choose_tile
from swinir.spec import ModelSpec

# What does not change a byte of the result.
UNSEEN_SETTINGS = {"device", "workers", "address", "stall_seconds", "fresh", "overwrite"}


@dataclass(frozen=True)
class Prepared:
    """Everything known before the first frame is upscaled."""

    source: str
    destination: str
    config: VideoConfig
    container_format: str
    model: ModelSpec
    info: VideoInfo
    timeline: Timeline
    plan: VideoPlan
    streams: list[StreamPlan]
    identity: dict[str, Any]
    job_id: str  # of source, settings and weights

    @property
    def pictures(self) -> Timeline:
        """When each picture of the result is shown."""
        return pictures(self.timeline, self.plan.deinterlace)

    @property
    def warnings(self) -> list[str]:
        changed = [
            f"stream {s.index} ({s.type}, {s.codec}): {s.action}: {s.reason}"
            for s in self.streams
            if s.action in ("drop", "convert", "rewrite")
        ]
        return [*self.info.warnings, *self.plan.warnings, *changed, *self.info.damage]


def job_digest(source: str, config: VideoConfig, model: ModelSpec) -> str:
    """What the command asks for, known without decoding anything."""
    settings = config.model_dump(exclude=UNSEEN_SETTINGS | WEIGHTS_SETTINGS | {"reuse"})
    return digest([asdict(identify(source, config.rate)), settings, config.reuse_within or 0.0, model.weights_sha256])


def hold_streams(source: str, destination: str, config: VideoConfig) -> tuple[list[StreamPlan], list[str]]:
    """What becomes of every stream, and what is lost; seconds at most, so that it comes before a model loads.

    Raises ConfigError where the container cannot hold them, MediaError where the source cannot be opened.
    """
    container_format = format_of(destination)
    check_places(source, destination)
    if container_format not in PICTURES_ONLY:
        check_codec(config.codec, container_format, destination)
    if config.rate and not is_sequence(source):
        raise ConfigError(f"--rate {config.rate} is for image sequences; {source} has times of its own")
    identify(source, config.rate)  # which says best what is wrong with a place
    with open_input(source, config.rate) as media:
        if container_format in PICTURES_ONLY:
            return pictures_only(media, source, config.stream)
        return plan_streams(media, source, config, container_format)


def prepare(
    source: str,
    destination: str,
    config: VideoConfig,
    held: tuple[list[StreamPlan], list[str]],
    model: ModelSpec,
    job_id: str,
    work: Store | None,
    listener: Listener,
) -> Prepared:
    """Decode the source once (or take an earlier probe of it), plan, and check that the result can be written."""
    container_format = format_of(destination)
    streams, lost = held
    identity = asdict(identify(source, config.rate))
    listener.phase("probing", None)
    info, timeline = probe_once(source, identity, config, work, listener)
    plan = plan_video(info, timeline, model.scale, config, wants_global_header(container_format), container_format)
    plan = replace(plan, warnings=(*plan.warnings, *lost))
    if container_format == "gif":
        plan = replace(
            plan, warnings=(*plan.warnings, *check_gif(pictures(timeline, plan.deinterlace), plan.encode, destination))
        )
    else:
        check_encoder(plan.encode)
    described = {
        "versions": software_versions(),
        "name": model.name,
        "weights_sha256": model.weights_sha256,
        "precision": model.precision,
        "tile": model.tile,
        "ensemble": model.ensemble,
        "reuse_within": config.reuse_within or 0.0,  # exact reuse changes no byte
    }
    full_identity = plan.identity({**identity, "stream": info.stream, "probe": probe_digest(info, timeline)}, described)
    return Prepared(source, destination, config, container_format, model, info, timeline, plan, streams, full_identity, job_id)


def probe_digest(info: VideoInfo, timeline: Timeline) -> str:
    return digest([info.to_json(), timeline.pts.tolist(), timeline.checksum.tolist()])


def probe_once(
    source: str, identity: dict[str, Any], config: VideoConfig, work: Store | None, listener: Listener
) -> tuple[VideoInfo, Timeline]:
    """The probe of exactly this source, kept in the work folder so that a resumed run need not decode everything again."""
    key = f"probe-{digest([FORMAT_VERSION, identity, config.stream])}"
    with tempfile.TemporaryDirectory(prefix="swinir-") as scratch:
        path = Path(scratch) / "timeline.parquet"
        if work is not None and work.exists(f"{key}.json"):
            work.download(f"{key}.parquet", path)
            return VideoInfo.from_json(json.loads(work.read(f"{key}.json"))), Timeline.read(str(path))
        with open_input(source, config.rate) as media:
            info, timeline = probe(media, source, config.stream, listener.frames)
            if isinstance(media, SequenceFile):
                info = media.completed(info)
        if work is not None:
            timeline.write(str(path))
            work.upload(path, f"{key}.parquet")
            work.write(f"{key}.json", json.dumps(info.to_json()).encode())
    return info, timeline


def describe_plan(job: Prepared) -> dict[str, Any]:
    """What ``--dry-run`` shows."""
    encode, folder = job.plan.encode, local_path(destination_of(job.destination).store.url)
    lengths = [stop - start for start, stop in job.plan.segments]
    return {
        "source": job.source,
        "destination": job.destination,
        "frames": len(job.pictures),
        "duration_s": round(job.info.duration_s, 3),
        "size": f"{job.info.width}x{job.info.height} -> {encode.width}x{encode.height}",
        "model": job.model.name,
        "tile": planned_tile(job),
        "encoder": f"{encode.codec} {encode.pix_fmt}" + (f" crf {encode.crf:g}" if encode.crf is not None else ""),
        "segments": f"{len(lengths)}, of {min(lengths)} to {max(lengths)} frames",
        "disk_needed_mib": round(disk_estimate_bytes(job) / 2**20, 1),
        "disk_free_mib": round(shutil.disk_usage(folder).free / 2**20) if folder else "object store",
        "streams": [f"{s.index} {s.type} {s.codec}: {s.action}" + (f" ({s.reason})" if s.reason else "") for s in job.streams],
        "guesses": list(job.plan.guesses),
        "warnings": job.warnings,
    }


def planned_tile(job: Prepared) -> str:
    """The tiles that workers begin with; those of a cluster choose by their own device."""
    model = job.model
    if job.config.address:
        kinds = ["cuda", "cpu"] if job.config.device == "auto" else [job.config.device]
    else:
        kinds = [choose_device(job.config.device).type]
    return ", ".join(f"{choose_tile(model.tile, torch.device(kind), model.window, model.overlap)} on {kind}" for kind in kinds)


def disk_estimate_bytes(job: Prepared) -> int:
    """Segments and the joined file at once: half a byte a pixel lossless, an eighth of that otherwise; on the safe side."""
    encode = job.plan.encode
    per_pixel = {"ffv1": 0.75, "png": 3.0, "gif": 1.0}.get(job.config.codec, 0.1)
    return round(2.1 * per_pixel * encode.width * encode.height * len(job.pictures))
