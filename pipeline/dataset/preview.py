"""What an image job would do, from all that it looks at before any work; nothing is written."""

from __future__ import annotations

import tempfile
from typing import Any

from pipeline.config import ImagesConfig
from pipeline.dataset.destination import check_places, refuse_taken
from pipeline.dataset.gone import units_that_lost
from pipeline.dataset.job import described, has_failures
from pipeline.dataset.names import WORK
from pipeline.dataset.planning import plan
from pipeline.dataset.walking import readable
from pipeline.ledger import Ledger
from pipeline.preflight import load_model_spec, refuse_device
from pipeline.report import Listener
from pipeline.storage import Store
from pipeline.units import digest


def preview_images(source: str, destination: str, config: ImagesConfig, listener: Listener) -> dict[str, Any]:
    """How many pictures and shards the archive ``source`` has, and how many of them ``destination`` lacks.

    Where a picture came or changed its whole shard counts as lacking; the results of the others are taken over all the same.
    Raises ConfigError or MediaError as ``upscale_images`` does.
    """
    check_places(source, destination)
    refuse_device(config)
    model = load_model_spec(config)
    out = Store(destination)
    work = Store(out.url_of(WORK))
    ledger = Ledger(work)
    refuse_taken(source, out, ledger, config)
    settings = described(config, model)
    records = {}
    if ledger.is_begun() and not config.fresh:
        ledger.refuse_other(settings)
        records = ledger.committed()
    listener.phase("listing", None)
    with tempfile.TemporaryDirectory(prefix="swinir-") as scratch:
        units = list(plan(source, destination, config, work, Store(scratch), digest(settings), listener))
    done = {unit.id: records[unit.id] for unit in units if unit.id in records}
    lacking = {unit_id for unit_id, record in done.items() if config.retry_failed and has_failures(record)}
    lacking |= units_that_lost(work, out, done)
    left = [unit for unit in units if unit.id not in done or unit.id in lacking]
    return {
        "source": readable(source),
        "destination": readable(destination),
        "model": model.name,
        "images": sum(unit.num_items for unit in units),
        "shards": len(units),
        "images_left": sum(unit.num_items for unit in left),
        "shards_left": len(left),
        "settings": config.model_dump(),
    }
