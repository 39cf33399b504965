"""Draw a short clip with sound, upscale it, and show where the result is.

swinir demo
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from jobs.options import local
from pipeline.errors import ConfigError

# What a demonstration makes, or one that was killed has left.
MADE = re.compile(r"clip\.mp4|clip-x2\.(mp4(\.report\.json|\.swinir)?|preview\.png)|\.clip-x2\.mp4\.lock|\.[0-9a-f]+\.part")


def demo(
    folder: Annotated[Path, typer.Argument(parser=local, help="Where it goes; an earlier one is replaced.")] = Path(
        "demo-output"
    ),
    model: Annotated[str, typer.Option(help="A preset of `swinir models`.")] = "lightweight-x2",
) -> None:
    """Upscale a clip made on the spot, with a before/after picture and the report."""
    from pipeline.cluster import run_units
    from pipeline.config import VideoConfig
    from pipeline.preflight import load_model_spec
    from pipeline.report import listener_for
    from pipeline.video.destination import report_name
    from pipeline.video.job import upscale_video
    from pipeline.video.preview import plan_only, write_preview
    from pipeline.video.sample import write_sample

    settings = VideoConfig(model=model)
    load_model_spec(settings)  # a model that cannot be had is refused before anything goes
    empty(folder)
    source, destination = write_sample(folder / "clip.mp4"), folder / "clip-x2.mp4"
    with listener_for(as_json=False) as listener:
        report = upscale_video(str(source), str(destination), settings, run_units, listener)
        picture = write_preview(plan_only(str(source), str(folder / "clip-x2.mp4"), settings, listener), 2)["preview"]
    console = Console(markup=False, highlight=False, soft_wrap=True)
    console.print(f"{report['frames_out']} frames, {report['video']['width']}x{report['video']['height']} -> "
                  f"{report['width']}x{report['height']}, in {report['seconds']:.0f} s")  # fmt: skip
    console.print(f"result   {destination.resolve()}")
    console.print(f"picture  {Path(picture).resolve()}  (left bicubic, right {model})")
    console.print(f"report   {(folder / report_name(destination.name)).resolve()}")


def empty(folder: Path) -> None:
    """Make room, of an earlier demonstration alone. Raises ConfigError where anything else is there."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ConfigError(f"{folder} is a file or a link; name a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = sorted(folder.iterdir())
        if foreign := next((path.name for path in found if not MADE.fullmatch(path.name)), None):
            raise ConfigError(f"{folder} holds {foreign}, which no demonstration made; name another folder")
        for path in found:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    except OSError as error:
        raise ConfigError(f"cannot write {error.filename or folder}: {error.strerror or error}; name another folder") from error
