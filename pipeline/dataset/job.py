"""The image job from end to end: list, run, index, describe; each step resumable, and a second run does what is new."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.config import WEIGHTS_SETTINGS, ImagesConfig
from pipeline.dataset.card import write_card
from pipeline.dataset.destination import SOURCE, check_places, claim, make_folder, refuse_taken
from pipeline.dataset.gone import units_that_lost
from pipeline.dataset.index import merge_index
from pipeline.dataset.names import INDEX, REPORT, WORK
from pipeline.dataset.outputs import remove_strays
from pipeline.dataset.planning import CRASHED, mark_of, plan, with_crashed
from pipeline.dataset.shards import LISTS, read_list
from pipeline.dataset.superseded import superseded
from pipeline.dataset.walking import readable
from pipeline.dataset.workload import CODEC_THREADS, ROWS, UNIT_BYTES, ShardWorkload
from pipeline.driver import Event, Outcome, RunOptions
from pipeline.errors import ConfigError, InterruptedRunError, MediaError, OutputError
from pipeline.ledger import Ledger
from pipeline.preflight import lease, load_model_spec, refuse_device, resumable
from pipeline.report import Listener, software_versions
from pipeline.storage import Store
from pipeline.units import Unit, Workload, as_json, digest
from swinir.spec import ModelSpec

RunUnits = Callable[[list[Unit], Workload, Ledger, RunOptions, Callable[[Event], None]], Outcome]

FORMAT_VERSION = 1  # of outputs and rows; another one shares nothing with this
FAILED = frozenset({"read_error", "decode_error", "unsupported", "too_large", "model_error", "crashed"})
NUM_REMOVED_NAMED = 1000
DISCARDED = "discarded.json"  # the files of rows that --fresh has found, until a run has finished
ROUNDS = 4  # each finds more pictures that kill their process

# What does not change a byte of the result.
UNSEEN_SETTINGS = {"device", "workers", "address", "stall_seconds", "fresh", "overwrite", "retry_failed"} | WEIGHTS_SETTINGS


def upscale_images(
    source: str, destination: str, config: ImagesConfig, run_units: RunUnits, listener: Listener
) -> dict[str, Any]:
    """Upscale the archive ``source`` into the folder ``destination``; the report that is also stored there.

    Raises ConfigError or MediaError before any work where the request cannot be met, InterruptedRunError after Ctrl-C; the
    same command, without ``fresh``, goes on from there, and after a finished run does what is new or changed.
    """
    started = time.monotonic()
    check_places(source, destination)
    refuse_device(config)
    make_folder(destination)
    model = load_model_spec(config)
    out = Store(destination)
    work = Store(out.url_of(WORK))
    with lease(destination, work.url), tempfile.TemporaryDirectory(prefix="swinir-") as scratch:
        ledger = Ledger(work)
        refuse_taken(source, out, ledger, config)
        if config.fresh and ledger.is_begun():
            discard(ledger)
        settings = described(config, model)
        is_new = ledger.begin(settings)
        noted = claim(work, source, config.overwrite)
        ledger.clear_quarantine()
        before = forget_failed(ledger) if config.retry_failed else ledger.committed()
        listener.phase("listing", None)
        try:
            units = list(plan(source, destination, config, work, work, digest(settings), listener))
        except (MediaError, ConfigError):
            if is_new:  # the cure may be another setting
                ledger.discard()
            if noted is None:
                work.delete(SOURCE)
            else:
                work.write(SOURCE, noted)
            raise
        forget_superseded(ledger, out, before, {unit.id for unit in units})
        workload = ShardWorkload(source, config, model, work, out)
        with resumable(destination, config.fresh):
            done = run(units, workload, ledger, before, run_units, listener)
            listener.phase("indexing", None)
            report = finish(done, workload, Path(scratch), listener)
        new = [record for unit, record in done if unit.id not in before]
        report |= {
            "source": readable(source),
            "destination": readable(destination),
            "images_processed": sum(sum(record["counts"].values()) - record["num_known"] for record in new),
            "images_known": sum(record["num_known"] for record in new),
            "settings": config.model_dump(),
            "versions": software_versions(),
            "seconds": round(time.monotonic() - started, 3),
        }
        out.write(REPORT, as_json(report))
    return report


def described(config: ImagesConfig, model: ModelSpec) -> dict[str, Any]:
    """Everything that changes a byte of a result, but for the picture itself, as plain JSON data."""
    return {
        "format_version": FORMAT_VERSION,
        "model": {"name": model.name, "weights_sha256": model.weights_sha256},
        "settings": config.model_dump(exclude=UNSEEN_SETTINGS),
        "versions": software_versions(),
    }


def discard(ledger: Ledger) -> None:
    """Forget earlier runs, but not what they left at the destination: the next run that finishes clears it away."""
    work = ledger.store
    work.write(DISCARDED, json.dumps(sorted(work.list(ROWS))).encode())
    for folder in (LISTS, CRASHED):
        work.delete_all(folder)
    ledger.discard()  # at last: what is begun no more has been discarded whole


def forget_failed(ledger: Ledger) -> dict[str, dict[str, Any]]:
    """Have the shards done again that hold failures; the records of the others."""
    ledger.store.delete_all(CRASHED)
    records = ledger.committed()
    failed = [unit_id for unit_id, record in records.items() if has_failures(record)]
    for unit_id in failed:
        ledger.forget(unit_id)
        del records[unit_id]
    return records


def has_failures(record: Mapping[str, Any]) -> bool:
    return bool(FAILED & record["counts"].keys())


def forget_superseded(ledger: Ledger, out: Store, records: dict[str, dict[str, Any]], wanted: Set[str]) -> None:
    """Take back, from ``records`` too, what no unit of the archive as it is now has a use for, or has lost a result.

    Were the archive ever as it was before, the results would be there no more, or be those of other bytes.
    """
    for unit_id in (records.keys() - wanted) | units_that_lost(ledger.store, out, records):
        ledger.forget(unit_id)
        del records[unit_id]


def run(
    units: list[Unit],
    workload: ShardWorkload,
    ledger: Ledger,
    before: Mapping[str, dict[str, Any]],
    run_units: RunUnits,
    listener: Listener,
) -> list[tuple[Unit, dict[str, Any]]]:
    """Each shard in order as it was done in the end, with its record; ``before`` has the records of an earlier run.

    A shard that killed its process has been taken apart. It is put together again as a whole, without the pictures that were
    found to be deadly: its files do not tell how it was come by.
    """
    config = workload.config
    options = RunOptions(
        num_workers=config.workers, device=config.device, address=config.address, stall_s=config.stall_seconds,
        unit_cpus=CODEC_THREADS, unit_bytes=UNIT_BYTES,
    )  # fmt: skip
    whole = {unit.spec["list"]: unit for unit in units}
    records = {unit.id: before[unit.id] for unit in units if unit.id in before}
    discarded = json.loads(workload.work.read(DISCARDED)) if workload.work.exists(DISCARDED) else []
    for _ in range(ROUNDS):
        left = [unit for unit in whole.values() if unit.id not in records]
        if not left:
            break
        listener.phase("upscaling", sum(unit.num_items for unit in left))
        no_use = {record["rows"] for record in [*before.values(), *records.values()]}.union(discarded)
        workload = replace(workload, row_files=tuple(sorted(set(workload.work.list(ROWS)) - no_use)))
        outcome = run_units(left, workload, ledger, options, listener.event)
        records |= outcome.committed
        for unit in left:
            if unit.id not in records and (found := killers(unit, outcome, workload)):
                crashed = unit.spec["crashed"] | found
                workload.work.write(mark_of(unit), json.dumps(crashed).encode())
                whole[unit.spec["list"]] = with_crashed(unit, crashed)
        if outcome.interrupted:
            done = sum(unit.id in records for unit in whole.values())
            raise InterruptedRunError(f"stopped at {done} of {len(whole)} shards; the same command goes on from there")
        if outcome.innocent:
            left = [unit for unit in whole.values() if unit.id not in records]
            reason = outcome.quarantined[min(outcome.innocent)][-1].removesuffix("; run the same command again to resume")
            raise OutputError(
                f"{len(left)} of {len(whole)} shards are not done: {reason}; the others are kept, and the same command goes on"
            )
    lost = next((unit for unit in whole.values() if unit.id not in records), None)
    if lost is not None:
        raise OutputError(
            f"{lost.num_items} pictures kill their process together and none of them does alone, from "
            f"{read_list(workload.work, lost.spec['list'])[0].key}; run the same command again on a machine of more memory"
        )
    return [(unit, records[unit.id]) for unit in whole.values()]


def killers(unit: Unit, outcome: Outcome, workload: ShardWorkload) -> dict[str, str]:
    """The numbers of a unit's pictures that were given up alone, each with the reason."""
    if unit.id in outcome.quarantined:
        if unit.id in outcome.innocent:
            return {}
        return {str(unit.spec["start"]): outcome.quarantined[unit.id][-1]}
    if unit.id in outcome.committed:
        return {}
    found: dict[str, str] = {}
    for part in workload.split(unit):
        found |= killers(part, outcome, workload)
    return found


def finish(
    done: list[tuple[Unit, dict[str, Any]]], workload: ShardWorkload, scratch: Path, listener: Listener
) -> dict[str, Any]:
    """Write the index and the card, and clear away what belongs to no input any more; counts of all that is there."""
    work, out = workload.work, workload.out
    records = [record for _, record in done]
    index = scratch / INDEX
    counts = merge_index(work, (record["rows"] for record in records), index)
    removed, unwanted, is_whole = superseded(out, work, {record["rows"] for record in records}, index, scratch)
    if not is_whole:
        listener.warn(f"the {INDEX} that was there is damaged: results whose source has gone are not named")
    for key in unwanted:
        out.delete(key)
    if removed:
        listener.warn(f"{len(removed)} pictures are no longer in the source, {removed[0]} for one")
    out.upload(index, INDEX)
    write_card(out, index, workload, counts)
    # Else the folder that it lists holds only what is wanted.
    if workload.config.output != "files" or workload.config.fresh or work.exists(DISCARDED):
        remove_strays(out, {file["key"] for record in records for file in record["files"]})
    wanted = {key for unit, record in done for key in (record["rows"], unit.spec["list"], mark_of(unit))}
    for key in [*work.list(ROWS), *work.list(LISTS), *work.list(CRASHED)]:
        if key not in wanted:
            work.delete(key)
    work.delete(DISCARDED)
    return {
        "images": counts.total(),
        "counts": dict(counts),
        "shards": len(records),
        "removed": removed[:NUM_REMOVED_NAMED],
        "num_removed": len(removed),
        "model": workload.model.name,
        "weights_sha256": workload.model.weights_sha256,
        "exit_code": 3 if FAILED & counts.keys() else 0,
    }
