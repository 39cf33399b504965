"""Draw a short clip with sound, upscale it, and show where the result is.

swinir demo
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def demo(
    folder: Annotated[Path, typer.Argument(help="Where the demonstration goes; emptied first.")] = Path("demo-output"),
    model: Annotated[str, typer.Option(help="A preset of `swinir models`.")] = "lightweight-x2",
) -> None:
    """Upscale a clip made on the spot, with a before/after picture and the report."""
    from pipeline.cluster import run_units
    from pipeline.config import VideoConfig
    from pipeline.report import listener_for
    from pipeline.video.destination import report_name
    from pipeline.video.job import upscale_video
    from pipeline.video.preview import plan_only, write_preview
    from pipeline.video.sample import write_sample

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    source, destination = write_sample(folder / "clip.mp4"), folder / "clip-x2.mp4"
    settings = VideoConfig(model=model)
    with listener_for(as_json=False) as listener:
        report = upscale_video(str(source), str(destination), settings, run_units, listener)
        picture = write_preview(plan_only(str(source), str(folder / "clip-x2.mp4"), settings, listener), 2)["preview"]
    console = Console(markup=False, highlight=False, soft_wrap=True)
    console.print(f"{report['frames_out']} frames, {report['video']['width']}x{report['video']['height']} -> "
                  f"{report['width']}x{report['height']}, in {report['seconds']:.0f} s")  # fmt: skip
    console.print(f"result   {destination.resolve()}")
    console.print(f"picture  {Path(picture).resolve()}  (left bicubic, right {model})")
    console.print(f"report   {(folder / report_name(destination.name)).resolve()}")
