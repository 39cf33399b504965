"""The video job from end to end: probe, plan, run, assemble, verify, publish; each step resumable."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.config import VideoConfig
from pipeline.driver import Event, Outcome, RunOptions
from pipeline.errors import InterruptedRunError, MediaError, OutputError
from pipeline.ledger import Ledger
from pipeline.preflight import lease, load_model_spec, refuse_device, resumable
from pipeline.report import Listener, software_versions
from pipeline.storage import Store, local_path
from pipeline.units import Unit, Workload, digest
from pipeline.video.assemble import DamagedSegmentError, assemble, stored_packets, verify
from pipeline.video.destination import (
    PICTURES_ONLY,
    REDONE,
    check_places,
    clear_state,
    config_for,
    destination_of,
    finished_report,
    format_of,
    is_redone,
    refuse_foreign,
    work_of,
)
from pipeline.video.encode import held_bytes
from pipeline.video.pictures import size_bytes, verify_pictures, write_pictures
from pipeline.video.prepare import Prepared, hold_streams, job_digest, prepare
from pipeline.video.segment import SegmentWorkload
from pipeline.video.sequence import open_input

RunUnits = Callable[[list[Unit], Workload, Ledger, RunOptions, Callable[[Event], None]], Outcome]


def upscale_video(
    source: str, destination: str, config: VideoConfig, run_units: RunUnits, listener: Listener
) -> dict[str, Any]:
    """Upscale ``source`` into ``destination``; the report that is also stored beside it.

    Raises ConfigError or MediaError before any work where the request cannot be met, OutputError where it stopped half-way,
    InterruptedRunError after Ctrl-C; in the last two the same command, without ``fresh``, goes on from there.
    """
    started = time.monotonic()
    check_places(source, destination)
    refuse_device(config)
    target = destination_of(destination)
    config = config_for(config, format_of(destination), destination)
    with lease(destination):
        held = hold_streams(source, destination, config)
        model = load_model_spec(config)
        job_id = job_digest(source, config, model)
        work = work_of(target)
        done = finished_report(target, job_id)
        if done and not config.fresh and not is_redone(work, job_id):
            clear_state(work)
            listener.note(f"{destination} is already complete; --fresh does it again")
            return {**done, "frames_processed": 0, "segments_reused": done["segments"]}
        refuse_foreign(target, work, config.overwrite)
        if config.fresh:
            work.delete_all("")
            work.write(REDONE, job_id.encode())
        job = prepare(source, destination, config, held, model, job_id, work, listener)
        refuse_damage(job)
        for line in [*job.plan.guesses, *job.warnings]:
            listener.warn(line)
        run = Ledger(Store(f"{work.url}/{digest(job.identity)}"))
        run.begin(job.identity)
        run.clear_quarantine()
        with scratch_in(work) as scratch, resumable(destination, config.fresh):
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


def refuse_damage(job: Prepared) -> None:
    if job.info.damage and job.config.on_decode_error == "fail":
        more = f" (and {len(job.info.damage) - 1} more)" if len(job.info.damage) > 1 else ""
        # Truncation explains the rest.
        first = next((line for line in job.info.damage if "truncated" in line), job.info.damage[0])
        raise MediaError(f"{job.source}: {first}{more}; --on-decode-error repeat goes on with what can be decoded")


def run_and_join(job: Prepared, run: Ledger, target: Path, run_units: RunUnits, listener: Listener) -> dict[str, Any]:
    """Upscale what is not yet committed, join it into ``target`` and verify that; the report but for its times."""
    units = job.plan.units(job.identity)
    # A worker's working directory need not be ours.
    source = local_path(job.source) or job.source
    workload = SegmentWorkload(
        source, job.config.rate, job.info, job.timeline, job.plan, job.model, job.config.device,
        job.config.reuse_within, run.store,
    )  # fmt: skip
    options = RunOptions(
        num_workers=job.config.workers, device=job.config.device, address=job.config.address, stall_s=job.config.stall_seconds,
        unit_cpus=job.config.encoder_threads, unit_bytes=held_bytes(job.plan.encode),
    )  # fmt: skip
    before = set(run.committed())
    while True:
        listener.phase("upscaling", len(job.pictures))
        outcome = run_units(units, workload, run, options, listener.event)
        refuse_unfinished(outcome, units)
        records = sorted(outcome.committed.values(), key=lambda record: record["index"])
        try:
            moved, refused = join(job, run.store, records, target, listener)
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
            "warnings": [*report["warnings"], *moved, *refused],
            "exit_code": 3 if refused else report["exit_code"],
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


def join(
    job: Prepared, segments: Store, records: list[dict[str, Any]], target: Path, listener: Listener
) -> tuple[list[str], list[str]]:
    """Assemble and verify; no trace of ``target`` stays where that fails half-way.

    Returns what became known only then: packets that moved, and those that are so damaged that no container takes them.
    """
    if target.is_dir():
        shutil.rmtree(target)
    target.unlink(missing_ok=True)
    listener.phase("joining", None)
    if job.container_format in PICTURES_ONLY:
        with open_input(job.source, job.config.rate) as media, closing(stored_packets(records, segments)) as packets:
            write_pictures(target, destination_of(job.destination), media, packets, job.pictures, job.plan.encode)
        listener.phase("verifying", None)
        verify_pictures(target, job.destination, job.pictures, job.plan.encode)
        return [], []
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
    moved = [
        f"stream {index}: {moves} of {count} packets did not rise in time and were moved up by a tick or more"
        for index, (count, moves, _) in taken.items()
        if moves
    ]
    refused = [
        f"stream {index}: {count} packets are damaged and are not in the result"
        for index, (_, _, count) in taken.items()
        if count
    ]
    return moved, refused


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
