"""What there is to do: the shards of an archive, but for pictures that are known to kill their process."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from pipeline.config import ImagesConfig
from pipeline.dataset.shards import cut_shards, write_list
from pipeline.dataset.sources import open_source
from pipeline.dataset.workload import shard_unit
from pipeline.errors import MediaError
from pipeline.report import Listener
from pipeline.storage import Store
from pipeline.units import Unit

CRASHED = "crashed"  # folder of what is known of them


def plan(
    source: str, destination: str, config: ImagesConfig, work: Store, lists: Store, run: str, listener: Listener
) -> Iterator[Unit]:
    """The units of an archive, their lists written to ``lists`` on the way. Raises MediaError where there is nothing in it."""
    num_items = 0
    marks = {key.rpartition("/")[2] for key in work.list(CRASHED)}
    archive = open_source(source, config.image_column, config.url_column, exclude=destination)
    for items in cut_shards(archive.items(), config.shard_rows):
        num_items += len(items)
        listener.frames(num_items)
        unit = shard_unit(run, write_list(lists, items), 0, len(items))
        yield with_crashed(unit, json.loads(work.read(mark_of(unit)))) if f"{unit.id}.json" in marks else unit
    if not num_items:
        raise MediaError(f"{source}: nothing is there; name a folder, a glob, tar or Parquet files or a list of URLs")


def with_crashed(unit: Unit, crashed: Mapping[str, str]) -> Unit:
    """A whole shard again, as it is done without those of its pictures that crashed."""
    numbered = {int(number): reason for number, reason in crashed.items()}
    return shard_unit(unit.spec["run"], unit.spec["list"], unit.spec["start"], unit.spec["stop"], numbered)


def mark_of(unit: Unit) -> str:
    """The key under which it is stored which pictures of a whole shard crashed."""
    return f"{CRASHED}/{with_crashed(unit, {}).id}.json"
