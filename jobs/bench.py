"""Measure speed, always against a named baseline in the same run.

swinir bench model
swinir bench training
swinir bench reuse
swinir bench images
swinir bench images --model nearest-x2 --count 1000 --memory 10000
"""

from __future__ import annotations

import functools
import http.server
import json
import multiprocessing
import resource
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

from jobs.bench_model import model
from jobs.bench_reuse import reuse
from jobs.bench_training import training
from pipeline.errors import ConfigError

if TYPE_CHECKING:  # torch loads with the first use: the command line's help does without
    from swinir import Upscaler

bench = typer.Typer(no_args_is_help=True, help="Measure speed, always against a named baseline in the same run.")

DEFAULT_COUNTS = {"nearest-x2": 800, "lightweight-x2": 16}
bench.command("model")(model)
bench.command("reuse")(reuse)
bench.command("training")(training)


@bench.command()
def images(
    model: Annotated[
        list[str] | None, typer.Option(help="May be given again. [default: nearest-x2 and lightweight-x2]")
    ] = None,
    count: Annotated[int | None, typer.Option(help="Pictures. [default: by the model]", min=2)] = None,
    width: Annotated[int, typer.Option(help="Of a picture, in pixels; under 200 the job adds borders.", min=16)] = 288,
    height: Annotated[int, typer.Option(min=16)] = 208,
    rounds: Annotated[int, typer.Option(help="Of each way, one after the other; medians count.", min=1)] = 3,
    latency_ms: Annotated[float, typer.Option(help="Added to each request of the last way.", min=0)] = 50,
    memory: Annotated[int, typer.Option(help="Also run nearest-x2 on this many small pictures, after a tenth of them.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line instead of tables.")] = False,
) -> None:
    """The image job against the bare model on the same pixels, and against a plain loop of Pillow, model, save."""
    from pipeline.config import ImagesConfig
    from pipeline.preflight import load_model_spec

    if memory and memory < 10:
        raise ConfigError(f"--memory takes 10 pictures or more, or 0 to leave it out, got {memory}")
    for name in model or ():
        load_model_spec(ImagesConfig(model=name))  # refused before any work
    rows = [row for name in model or DEFAULT_COUNTS for row in compare(name, count, (width, height), rounds, latency_ms)]
    growth = memory_growth(memory) if memory else None
    if as_json:
        print(json.dumps({"rows": rows, "memory": growth}))
        return
    table = Table("model", "way", "images/s", "output Mpx/s", "of the bare model", "of the plain loop")
    for row in rows:
        table.add_row(
            row["model"], row["way"], f"{row['images_per_s']:.2f}", f"{row['output_mpx_per_s']:.2f}",
            f"{row['of_bare']:.3f}", f"{row['of_plain']:.3f}",
        )  # fmt: skip
    Console().print(table)
    if growth:
        print(f"peak memory: {growth['mib_small']:.0f} MiB at {memory // 10} pictures, {growth['mib_large']:.0f} at {memory}")


def compare(model: str, count: int | None, size: tuple[int, int], rounds: int, latency_ms: float) -> list[dict[str, Any]]:
    """One row for each way to upscale the same pictures, each time in a process of its own that is warm before it counts."""
    num = count or DEFAULT_COUNTS.get(model, 16)
    with tempfile.TemporaryDirectory(prefix="swinir-bench-") as folder:
        scratch = Path(folder)
        source = draw(scratch / "in", num, size)
        with folder_server(source, 0) as url, folder_server(source, latency_ms / 1000) as slow_url:
            ways = {
                "bare model": ("bare", source),
                "plain loop": ("plain", source),
                "swinir images": ("job", source),
                "swinir images, over HTTP": ("job", list_of_urls(source, url, scratch / "urls.txt")),
                f"the same, {latency_ms:g} ms later": ("job", list_of_urls(source, slow_url, scratch / "slow_urls.txt")),
            }
            taken: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(rounds):
                for way, (kind, at) in ways.items():
                    taken[way].append(in_new_process(kind, model, at, scratch))
    seconds = {way: statistics.median(each) for way, each in taken.items()}
    output_px = num * size[0] * size[1] * scale_of(model) ** 2
    return [
        {
            "model": model,
            "way": way,
            "images_per_s": num / each,
            "output_mpx_per_s": output_px / each / 1e6,
            "of_bare": seconds["bare model"] / each,
            "of_plain": seconds["plain loop"] / each,
        }
        for way, each in seconds.items()
    ]


def scale_of(model: str) -> int:
    from swinir import Upscaler

    return Upscaler(model).scale


def in_new_process(kind: str, model: str, source: Path, scratch: Path) -> float:
    """Seconds. OpenMP keeps threads for each thread that ever computed; in one process each way would slow down the next."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(timed, kind, model, source, scratch).result()


def timed(kind: str, model: str, source: Path, scratch: Path) -> float:
    """Seconds for all pictures of ``source``, a folder or for the job a list of URLs, by one of the three kinds."""
    from swinir import Upscaler

    up = Upscaler(model)
    if kind == "job":
        run_job(draw(scratch / "warm", 2, (32, 24)), scratch, model)
        shutil.rmtree(scratch / "warm")
        started = time.perf_counter()
        run_job(source, scratch, model)
        return time.perf_counter() - started
    pixels = [np.asarray(Image.open(path)) for path in sorted(source.iterdir())]
    up(pixels[0])
    started = time.perf_counter()
    if kind == "plain":
        plain_loop(source, scratch, up)
    else:
        for picture in pixels:
            up(picture)
    return time.perf_counter() - started


def list_of_urls(source: Path, url: str, target: Path) -> Path:
    target.write_text("".join(f"{url}/{path.name}\n" for path in sorted(source.iterdir())))
    return target


def draw(folder: Path, num: int, size: tuple[int, int]) -> Path:
    """A folder of PNG files of one size, each another."""
    from pipeline.video.sample import picture

    folder.mkdir()
    for i in range(num):
        picture(i, size).save(folder / f"{i:06d}.png")
    return folder


def plain_loop(source: Path, scratch: Path, up: Upscaler) -> None:
    """What anyone would write first."""
    with tempfile.TemporaryDirectory(dir=scratch) as out:
        for path in sorted(source.iterdir()):
            Image.fromarray(up(np.asarray(Image.open(path)))).save(Path(out) / path.name)


def run_job(source: Path, scratch: Path, model: str) -> None:
    """The whole image job, index and card included, in this process."""
    from pipeline import local
    from pipeline.config import ImagesConfig
    from pipeline.dataset.job import upscale_images

    with tempfile.TemporaryDirectory(dir=scratch) as out:
        upscale_images(str(source), f"{out}/out", ImagesConfig(model=model), local.run_units, Silent())


def memory_growth(num: int) -> dict[str, float]:
    """The most memory, in MiB, that a process needs for a job of a tenth of ``num`` small pictures, and one for all."""
    peaks = []
    for each in (num // 10, num):
        with tempfile.TemporaryDirectory(prefix="swinir-bench-") as folder:
            source = draw(Path(folder) / "in", each, (32, 24))
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                peaks.append(pool.submit(peak_mib, source, Path(folder)).result())
    return {"mib_small": peaks[0], "mib_large": peaks[1]}


def peak_mib(source: Path, scratch: Path) -> float:
    run_job(source, scratch, "nearest-x2")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextmanager
def folder_server(folder: Path, delay_s: float) -> Iterator[str]:
    """An HTTP server for a folder, every answer of which comes ``delay_s`` late."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            time.sleep(delay_s)
            super().do_GET()

        def log_message(self, *args: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class Silent:
    """A listener that says nothing."""

    def phase(self, name: str, total: int | None) -> None: ...
    def frames(self, count: int) -> None: ...
    def event(self, event: object) -> None: ...
    def note(self, line: str) -> None: ...
    def warn(self, line: str) -> None: ...
