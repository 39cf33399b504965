"""The video job from end to end: probe, plan, run, assemble, verify, publish; each step resumable."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pipeline.config import WEIGHTS_SETTINGS, VideoConfig
from pipeline.driver import Event, Outcome, RunOptions
from pipeline.errors import ConfigError, InterruptedRunError, MediaError, OutputError
from pipeline.ledger import Ledger
from pipeline.preflight import lease, load_model_spec
from pipeline.report import Listener, software_versions
from pipeline.storage import Store, local_path
from pipeline.units import Unit, Workload, digest
from pipeline.video.assemble import DamagedSegmentError, assemble, stored_packets, verify
from pipeline.video.destination import (
    PICTURES_ONLY,
    check_places,
    config_for,
    destination_of,
    finished_report,
    format_of,
    pictures_only,
    refuse_foreign,
)
from pipeline.video.drymux import plan_streams
from pipeline.video.encode import check_encoder
from pipeline.video.fields import pictures
from pipeline.video.gif import check_gif
from pipeline.video.pictures import size_bytes, verify_pictures, write_pictures
from pipeline.video.plan import FORMAT_VERSION, VideoPlan, plan_video
from pipeline.video.probe import VideoInfo, probe
from pipeline.video.segment import SegmentWorkload
from pipeline.video.sequence import SequenceFile, identify, is_sequence, open_input
from pipeline.video.streams import StreamPlan, check_codec, wants_global_header
from pipeline.video.timeline import Timeline
from swinir.device import choose_device, choose_tile
from swinir.spec import ModelSpec

RunUnits = Callable[[list[Unit], Workload, Ledger, RunOptions, Callable[[Event], None]], Outcome]

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


def upscale_video(
    source: str, destination: str, config: VideoConfig, run_units: RunUnits, listener: Listener
) -> dict[str, Any]:
    """Upscale ``source`` into ``destination``; the report that is also stored beside it.

    Raises ConfigError or MediaError before any work where the request cannot be met, OutputError where it stopped half-way,
    InterruptedRunError after Ctrl-C; in the last two the same command goes on from there.
    """
    started = time.monotonic()
    check_places(source, destination)
    target = destination_of(destination)
    config = config_for(config, format_of(destination), destination)
    with lease(destination):
        held = hold_streams(source, destination, config)
        model = load_model_spec(config)
        job_id = job_digest(source, config, model)
        done = finished_report(target, job_id)
        if done and not config.fresh:
            listener.note(f"{destination} is already complete; --fresh does it again")
            return {**done, "frames_processed": 0, "segments_reused": done["segments"]}
        work = Store(f"{target.store.url}/{target.name}.swinir")
        refuse_foreign(target, work, config.overwrite)
        if config.fresh:
            work.delete_all("")
        job = prepare(source, destination, config, held, model, job_id, work, listener)
        refuse_damage(job)
        for line in [*job.plan.guesses, *job.warnings]:
            listener.warn(line)
        run = Ledger(Store(f"{work.url}/{digest(job.identity)}"))
        run.begin(job.identity)
        run.clear_quarantine()
        with scratch_in(work) as scratch:
            made = scratch / f"joined{Path(target.name).suffix}"
            report = run_and_join(job, run, made, run_units, listener)
            report["seconds"] = round(time.monotonic() - started, 3)
            report["fps"] = round(report["frames_processed"] / max(report["seconds"], 1e-9), 3)
            target.publish(made, report, work)
        work.delete_all("")
    return report


@contextmanager
def scratch_in(work: Store) -> Iterator[Path]:
    """A folder for the joined file; on the same disk as a local destination, and found again after a kill."""
    beside = local_path(work.url)
    if beside is None:
        with tempfile.TemporaryDirectory(prefix="swinir-") as folder:
            yield Path(folder)
        return
    scratch = Path(beside) / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    yield scratch


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


def refuse_damage(job: Prepared) -> None:
    if job.info.damage and job.config.on_decode_error == "fail":
        more = f" (and {len(job.info.damage) - 1} more)" if len(job.info.damage) > 1 else ""
        # Truncation explains the rest.
        first = next((line for line in job.info.damage if "truncated" in line), job.info.damage[0])
        raise MediaError(f"{job.source}: {first}{more}; --on-decode-error repeat goes on with what can be decoded")


def run_and_join(job: Prepared, run: Ledger, target: Path, run_units: RunUnits, listener: Listener) -> dict[str, Any]:
    """Upscale what is not yet committed, join it into ``target`` and verify that; the report but for its times."""
    units = job.plan.units(job.identity)
    workload = SegmentWorkload(
        job.source, job.config.rate, job.info, job.timeline, job.plan, job.model, job.config.device,
        job.config.reuse_within, run.store,
    )  # fmt: skip
    options = RunOptions(
        num_workers=job.config.workers, device=job.config.device, address=job.config.address, stall_s=job.config.stall_seconds
    )
    before = set(run.committed())
    while True:
        listener.phase("upscaling", len(job.pictures))
        outcome = run_units(units, workload, run, options, listener.event)
        refuse_unfinished(outcome, units)
        records = sorted(outcome.committed.values(), key=lambda record: record["index"])
        try:
            moved = join(job, run.store, records, target, listener)
        except DamagedSegmentError as damaged:
            listener.warn(f"{damaged}; done again")
            run.forget(units[damaged.index].id)
            before.discard(units[damaged.index].id)
            continue
        made = sorted({(record["precision"], record["tile"]) for record in records})
        if len(made) > 1:
            listener.warn(f"segments were made at different precisions or tiles: {made}")
        new = [unit for unit in units if unit.id not in before]
        report = describe(job, units, new, size_bytes(target))
        return report | {
            "warnings": [*report["warnings"], *moved],
            "made_with": [{"precision": precision, "tile": tile} for precision, tile in made],
            "nonfinite_tiles": sum(record["nonfinite_tiles"] for record in records),
            "tiles_reused": sum(record["tiles_reused"] for record in records),
        }


def refuse_unfinished(outcome: Outcome, units: list[Unit]) -> None:
    if outcome.interrupted:
        raise InterruptedRunError(
            f"stopped at {len(outcome.committed)} of {len(units)} segments; the same command goes on from there"
        )
    for unit in units:
        if unit.id in outcome.quarantined:
            reason = outcome.quarantined[unit.id][-1]
            raise OutputError(
                f"{len(outcome.quarantined)} of {len(units)} segments failed; segment {unit.spec['index']}: {reason}; "
                "the others are kept, and the same command tries these again"
            )


def join(job: Prepared, segments: Store, records: list[dict[str, Any]], target: Path, listener: Listener) -> list[str]:
    """Assemble and verify; no trace of ``target`` stays where that fails half-way. Returns what became known only then."""
    if target.is_dir():
        shutil.rmtree(target)
    target.unlink(missing_ok=True)
    listener.phase("joining", None)
    if job.container_format in PICTURES_ONLY:
        with open_input(job.source, job.config.rate) as media, closing(stored_packets(records, segments)) as packets:
            write_pictures(target, destination_of(job.destination), media, packets, job.pictures, job.plan.encode)
        listener.phase("verifying", None)
        verify_pictures(target, job.destination, job.pictures, job.plan.encode)
        return []
    with open_input(job.source, job.config.rate) as media:
        taken = assemble(
            target,
            media,
            job.source,
            job.info,
            job.pictures,
            job.plan.encode,
            job.streams,
            records,
            segments,
            job.container_format,
        )
    listener.phase("verifying", None)
    verify(target, job.destination, job.pictures, job.plan.encode, job.streams, taken)
    return [
        f"stream {index}: {moved} of {count} packets did not rise in time and were moved up by a tick or more"
        for index, (count, moved) in taken.items()
        if moved
    ]


def describe(job: Prepared, units: list[Unit], new: list[Unit], size_bytes: int) -> dict[str, Any]:
    repeated = [int(index) for index in job.pictures.repeated.nonzero()[0]]
    damaged = bool(job.info.damage)
    return {
        "source": job.source,
        "destination": job.destination,
        "job": job.job_id,
        "plan": digest(job.identity),
        "size_bytes": size_bytes,
        "frames_in": int((~job.timeline.repeated).sum()),
        "frames_out": len(job.pictures),
        "frames_repaired": repeated,
        **job.info.time_repairs.report(),
        "frames_processed": sum(unit.num_items for unit in new),
        "segments": len(units),
        "segments_reused": len(units) - len(new),
        "width": job.plan.encode.width,
        "height": job.plan.encode.height,
        "model": job.model.name,
        "weights_sha256": job.model.weights_sha256,
        "settings": job.config.model_dump(),
        "video": job.info.to_json(),
        "encode": asdict(job.plan.encode),
        "streams": [stream.to_json() for stream in job.streams],
        "guesses": list(job.plan.guesses),
        "warnings": job.warnings,
        "versions": software_versions(),
        "exit_code": 3 if damaged else 0,
    }


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
    window = job.model.config.window_size if job.model.config else 1
    kinds = [job.config.device] if job.config.device != "auto" else [choose_device("auto").type]
    if job.config.device == "auto" and job.config.address:
        kinds = ["cuda", "cpu"]
    return ", ".join(f"{choose_tile(job.model.tile, torch.device(kind), window)} on {kind}" for kind in kinds)


def disk_estimate_bytes(job: Prepared) -> int:
    """Segments and the joined file at once: half a byte a pixel lossless, an eighth of that otherwise; on the safe side."""
    encode = job.plan.encode
    per_pixel = {"ffv1": 0.75, "png": 3.0, "gif": 1.0}.get(job.config.codec, 0.1)
    return round(2.1 * per_pixel * encode.width * encode.height * len(job.pictures))
