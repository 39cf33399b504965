"""The image job from end to end: list, run, index, describe; each step resumable, and a second run does what is new."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.config import ImagesConfig
from pipeline.dataset.card import write_card
from pipeline.dataset.index import Row, merge_index, removed_keys, write_rows
from pipeline.dataset.names import INDEX, REPORT, WORK
from pipeline.dataset.outputs import remove_strays
from pipeline.dataset.shards import LISTS, cut_shards, read_list, write_list
from pipeline.dataset.sources import open_source
from pipeline.dataset.workload import ROWS, ShardWorkload, shard_unit
from pipeline.driver import Event, Outcome, RunOptions
from pipeline.errors import ConfigError, InterruptedRunError, MediaError
from pipeline.ledger import Ledger
from pipeline.preflight import lease, load_model_spec
from pipeline.report import Listener, software_versions
from pipeline.storage import Store, local_path, normal_url
from pipeline.units import Unit, Workload, digest
from swinir.spec import ModelSpec

RunUnits = Callable[[list[Unit], Workload, Ledger, RunOptions, Callable[[Event], None]], Outcome]

FORMAT_VERSION = 1  # of outputs and rows; another one shares nothing with this
FAILED = frozenset({"read_error", "decode_error", "unsupported", "too_large", "model_error", "crashed"})
NUM_REMOVED_NAMED = 1000

# What does not change a byte of the result.
UNSEEN_SETTINGS = {"device", "workers", "address", "stall_seconds", "fresh", "overwrite", "retry_failed", "weights"}


def upscale_images(
    source: str, destination: str, config: ImagesConfig, run_units: RunUnits, listener: Listener
) -> dict[str, Any]:
    """Upscale the archive ``source`` into the folder ``destination``; the report that is also stored there.

    Raises ConfigError or MediaError before any work where the request cannot be met, InterruptedRunError after Ctrl-C; the
    same command goes on from there, and after a finished run does what is new or changed.
    """
    started = time.monotonic()
    check_places(source, destination)
    model = load_model_spec(config)
    out = Store(destination)
    work = Store(out.url_of(WORK))
    with lease(work.url), tempfile.TemporaryDirectory(prefix="swinir-") as scratch:
        ledger = Ledger(work)
        is_ours = out.exists(INDEX) or any(True for _ in work.list())
        if config.fresh:
            work.delete_all("")
        settings = described(config, model)
        # Without --overwrite, not even --fresh goes where this program never was.
        if ledger.begin(settings) and not (config.overwrite or (config.fresh and is_ours)):
            refuse_foreign(out, ledger)
        ledger.clear_quarantine()
        listener.phase("listing", None)
        units = list(plan(source, destination, config, work, digest(settings), listener))
        before = forget_failed(ledger) if config.retry_failed else ledger.committed()
        workload = ShardWorkload(source, config, model, work, out)
        outcome = run(units, workload, ledger, run_units, listener)
        listener.phase("indexing", None)
        report = finish(units, outcome, workload, Path(scratch), listener)
        new = [record for unit_id, record in outcome.committed.items() if unit_id not in before]
        report |= {
            "source": source,
            "destination": destination,
            "images_processed": sum(sum(record["counts"].values()) for record in new),
            "settings": config.model_dump(),
            "versions": software_versions(),
            "seconds": round(time.monotonic() - started, 3),
        }
        out.write(REPORT, json.dumps(report, indent=1, ensure_ascii=False).encode())
    return report


def check_places(source: str, destination: str) -> None:
    """ConfigError where the destination is the source, or lies in no folder; creates a local one."""
    if normal_url(source) == normal_url(destination):
        raise ConfigError(f"{destination} is the source itself; choose another destination")
    path = local_path(destination)
    if path is not None:
        if not Path(path).parent.is_dir():
            raise ConfigError(f"{Path(path).parent} is not a folder; create it first")
        if Path(path).is_file():
            raise ConfigError(f"{destination} is a file; name a folder for the results")
        try:
            Path(path).mkdir(exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot write in {Path(path).parent}: {error.strerror or error}") from error


def described(config: ImagesConfig, model: ModelSpec) -> dict[str, Any]:
    """Everything that changes a byte of a result, but for the picture itself, as plain JSON data."""
    return {
        "format_version": FORMAT_VERSION,
        "model": {"name": model.name, "weights_sha256": model.weights_sha256},
        "settings": config.model_dump(exclude=UNSEEN_SETTINGS),
        "versions": software_versions(),
    }


def refuse_foreign(out: Store, ledger: Ledger) -> None:
    """Never write among files that this program did not make."""
    found = next((key for key in out.list() if not key.startswith((f"{WORK}/", f".{WORK}"))), None)
    if found is not None:
        ledger.discard()
        raise ConfigError(
            f"{out.url} holds files that were not made by this program ({found}); pass --overwrite or choose another"
        )


def plan(source: str, destination: str, config: ImagesConfig, work: Store, run: str, listener: Listener) -> Iterator[Unit]:
    """The units of an archive, its lists written on the way. Raises MediaError where there is nothing in it."""
    num_items = 0
    archive = open_source(source, config.image_column, config.url_column, exclude=destination)
    for items in cut_shards(archive.items(), config.shard_rows):
        num_items += len(items)
        listener.frames(num_items)
        yield shard_unit(run, write_list(work, items), 0, len(items))
    if not num_items:
        raise MediaError(f"{source}: nothing is there; name a folder, a glob, tar or Parquet files or a list of URLs")


def forget_failed(ledger: Ledger) -> dict[str, dict[str, Any]]:
    """Have the shards done again that hold failures; the records of the others."""
    records = ledger.committed()
    failed = [unit_id for unit_id, record in records.items() if FAILED & record["counts"].keys()]
    for unit_id in failed:
        ledger.forget(unit_id)
        del records[unit_id]
    return records


def run(units: list[Unit], workload: ShardWorkload, ledger: Ledger, run_units: RunUnits, listener: Listener) -> Outcome:
    config = workload.config
    options = RunOptions(num_workers=config.workers, device=config.device, address=config.address, stall_s=config.stall_seconds)
    listener.phase("upscaling", sum(unit.num_items for unit in units))
    outcome = run_units(units, workload, ledger, options, listener.event)
    if outcome.interrupted:
        raise InterruptedRunError(
            f"stopped at {len(outcome.committed)} of {len(units)} shards; the same command goes on from there"
        )
    return outcome


def finish(units: list[Unit], outcome: Outcome, workload: ShardWorkload, scratch: Path, listener: Listener) -> dict[str, Any]:
    """Write the index and the card, and clear away what belongs to no input any more; counts of all that is there."""
    work, out = workload.work, workload.out
    records = [
        record or crashed(unit, outcome.quarantined[unit.id][-1], workload, scratch)
        for planned in units
        for unit, record in ended(planned, outcome, workload)
    ]
    index = scratch / INDEX
    counts = merge_index(work, (record["rows"] for record in records), index)
    removed: list[str] = []
    if out.exists(INDEX):
        out.download(INDEX, scratch / "before.parquet")
        removed = list(removed_keys(scratch / "before.parquet", index))
    if removed:
        listener.warn(f"{len(removed)} pictures are no longer in the source, {removed[0]} for one")
    out.upload(index, INDEX)
    write_card(out, index, workload, counts)
    remove_strays(out, {file["key"] for record in records for file in record["files"]})
    wanted = {record["rows"] for record in records} | {unit.spec["list"] for unit in units}
    for key in [*work.list(ROWS), *work.list(LISTS)]:
        if key not in wanted:
            work.delete(key)
    return {
        "images": counts.total(),
        "counts": dict(counts),
        "shards": len(units),
        "removed": removed[:NUM_REMOVED_NAMED],
        "num_removed": len(removed),
        "model": workload.model.name,
        "weights_sha256": workload.model.weights_sha256,
        "exit_code": 3 if FAILED & counts.keys() else 0,
    }


def ended(unit: Unit, outcome: Outcome, workload: ShardWorkload) -> Iterator[tuple[Unit, dict[str, Any] | None]]:
    """A unit, or the parts it was split into, in order, each with its record, None for what was given up."""
    if unit.id in outcome.committed:
        yield unit, outcome.committed[unit.id]
    elif unit.id in outcome.quarantined:
        yield unit, None
    else:
        for part in workload.split(unit):
            yield from ended(part, outcome, workload)


def crashed(unit: Unit, reason: str, workload: ShardWorkload, scratch: Path) -> dict[str, Any]:
    """The record of a unit that was given up: a row for each of its pictures, which says why."""
    items = read_list(workload.work, unit.spec["list"])[unit.spec["start"] : unit.spec["stop"]]
    shard = PurePosixPath(unit.spec["list"]).stem
    rows = [
        Row(key=item.key, shard=shard, row=number, status="crashed", error=reason, model=workload.model.name)
        for number, item in enumerate(items, unit.spec["start"])
    ]
    write_rows(scratch / "crashed.parquet", rows)
    key = f"{ROWS}/{unit.id}.parquet"
    workload.work.upload(scratch / "crashed.parquet", key)
    return {"rows": key, "files": []}
