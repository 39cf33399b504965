"""The dataset card: what became of every input, with which settings, and how to load the results, with a contact sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

from pipeline.config import ImagesConfig, RunConfig
from pipeline.dataset.images import read_picture
from pipeline.dataset.index import GROUP_ROWS, Row
from pipeline.dataset.names import CARD, DATA, INDEX, SHEET
from pipeline.dataset.outputs import read_output
from pipeline.dataset.picture import Limits, PictureError
from pipeline.dataset.shards import LISTS, read_list
from pipeline.dataset.sheet import MAX_PIXELS, choose, draw, pair
from pipeline.dataset.sources import open_source
from pipeline.dataset.workload import ShardWorkload
from pipeline.errors import MediaError
from pipeline.storage import Store
from swinir.spec import ModelSpec

_NUM_READERS = 4

_MEANINGS = {
    "ok": "upscaled",
    "skipped": "needs no upscaling, by the settings",
    "unsupported": "a kind of picture that is not read",
    "too_large": "more pixels than the limit",
    "decode_error": "damaged, or not a picture",
    "read_error": "could not be read",
    "model_error": "the model failed on it",
    "crashed": "ended the process that read it",
}

_LOAD = {
    "files": """\
from pathlib import Path
from datasets import load_dataset

dataset = load_dataset(str(Path.cwd()), split="train")""",
    "parquet": f"""\
from pathlib import Path
from datasets import load_dataset

dataset = load_dataset(str(Path.cwd()), split="train")
dataset = load_dataset("parquet", data_files="{DATA}/*.parquet", split="train")  # the same""",
    "webdataset": f"""\
from glob import glob
from webdataset import WebDataset

dataset = WebDataset(sorted(glob("{DATA}/*.tar")), shardshuffle=False).decode("pil")
dataset = dataset.rename(image="ENDINGS", facts="json")""",
}

_INDEX = f"""\
import duckdb
import pandas

duckdb.sql("SELECT status, count(*) FROM '{INDEX}' GROUP BY status").show()
pandas.read_parquet("{INDEX}").groupby("status").size()"""


def write_card(out: Store, index: Path, workload: ShardWorkload, counts: Mapping[str, int]) -> None:
    """Store the card and its contact sheet; no sheet, and none from before, where no pair can be shown."""
    pairs = read_pairs(out, index, workload)
    if pairs:
        out.write(SHEET, draw([cells for _, cells in pairs]))
    else:
        out.delete(SHEET)
    shown = [key for key, _ in pairs]
    out.write(CARD, card_text(workload.config, workload.model, counts, endings(index, workload.config.output), shown).encode())


def card_text(
    config: ImagesConfig, model: ModelSpec, counts: Mapping[str, int], endings: Sequence[str], shown: Sequence[str]
) -> str:
    """Markdown with the front matter that Hugging Face reads. ``endings`` of the pictures; ``shown``: keys on the sheet."""
    files = {"files": [f"**/*.{ending}" for ending in endings], "parquet": f"{DATA}/*.parquet", "webdataset": f"{DATA}/*.tar"}
    front: dict[str, Any] = {"task_categories": ["image-to-image"], "tags": ["super-resolution", "swinir"]}
    if endings:
        default: dict[str, Any] = {
            "config_name": "default",
            "data_files": [{"split": "train", "path": files[config.output]}],
        }
        if config.output == "files":
            default["drop_labels"] = True  # folders are not classes
        front["configs"] = [default]
    total = sum(counts.values())
    statuses = [f"| `{status}` | {count:,} | {_MEANINGS.get(status, '')} |" for status, count in counts.items()]
    weights = f", weights SHA-256 `{model.weights_sha256}`" if model.weights_sha256 else ""
    sections = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {counts.get('ok', 0):,} upscaled pictures",
        f"Made with [swinir-pipeline](https://arxiv.org/abs/2108.10257): `{model.name}`, x{model.scale}{weights}.",
    ]
    if shown:
        sections += [
            f"![Pairs of pictures]({SHEET})",
            "On the left of each pair bicubic, on the right the result; the middle of "
            + ", ".join(_code(key) for key in shown)
            + ".",
        ]
    sections += [
        f"## What became of the {total:,} inputs",
        "\n".join(["| status | inputs | |", "|---|---|---|", *statuses]),
        f"`{INDEX}` has one row for each, sorted by `key`: what went in and came out, with sizes and SHA-256, and two checks\n"
        "that need no reference: `psnr_reduced_db` compares the result, reduced to the size of the source, with the source,\n"
        "and `colour_drift` is how far the mean colour moved, in 8-bit codes.",
        f"```python\n{_INDEX}\n```",
    ]
    if endings:
        load = _LOAD[config.output].replace("ENDINGS", ";".join(endings))
        sections += ["## How to load the pictures", f"In this folder:\n\n```python\n{load}\n```"]
    sections += ["## Settings", "\n".join(["| setting | value |", "|---|---|", *_settings(config)])]
    return "\n\n".join(sections) + "\n"


def read_pairs(out: Store, index: Path, workload: ShardWorkload) -> list[tuple[str, NDArray[np.uint8]]]:
    """Key and drawing of each pair; those are left out of which a side has gone or changed since."""
    config = workload.config
    source = open_source(workload.source, config.image_column, config.url_column)
    limits = Limits(max(MAX_PIXELS, config.bomb_pixels), animated="first")
    decoding = Lock()  # large pictures, one at a time

    def read(row: Row) -> tuple[str, NDArray[np.uint8]] | None:
        try:
            before = source.read(read_list(workload.work, f"{LISTS}/{row.shard}.parquet")[row.row])
            after = read_output(out, row)
            with decoding:
                return row.key, pair(read_picture(before, limits).pixels, read_picture(after, limits).pixels)
        except (FileNotFoundError, KeyError, MediaError, PictureError):
            return None

    with ThreadPoolExecutor(_NUM_READERS) as pool:
        return [found for found in pool.map(read, choose(index)) if found]


def endings(index: Path, output: str) -> list[str]:
    """Of the names of the pictures in a finished folder, as they stand there, without the dot."""
    found: set[str] = set()
    column = "output" if output == "files" else "output_format"
    with pq.ParquetFile(index, pre_buffer=False) as file:
        for batch in file.iter_batches(GROUP_ROWS, columns=[column]):
            last = pc.replace_substring_regex(batch[column], r"(?s)^.*\.", "")
            found.update(ending for ending in pc.unique(last).to_pylist() if ending)
    return sorted(found)


def _settings(config: ImagesConfig) -> list[str]:
    """Those that have a part in the result, as rows of a table."""
    own = ImagesConfig.model_fields.keys() - RunConfig.model_fields.keys() - {"retry_failed"}
    names = [*own, "ensemble", "precision", "strength", "tile"]
    values = {name: getattr(config, name) for name in sorted(names)}
    return [f"| `{name}` | {_code(str(value))} |" for name, value in values.items() if value is not None]


def _code(text: str) -> str:
    """``text`` as a code span of one line, whatever it holds."""
    text = " ".join(text.split()).replace("|", "\\|")
    fence = "``" if "`" in text else "`"
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"
