"""Show whether a larger video shimmers where its source does not, and how far each frame is from the truth.

swinir compare in.mkv out.mkv --plot flicker.png
swinir compare small.mkv out.mkv --truth large.mkv --json
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.errors import ConfigError

if TYPE_CHECKING:  # torch and FFmpeg load with the first use: the command line's help does without
    from pipeline.video.quality import FrameQuality


def compare(
    source: Annotated[str, typer.Argument(help="The small video: a path, a URL or a folder of images.")],
    result: Annotated[str, typer.Argument(help="What any program made of it, frame by frame.")],
    truth: Annotated[str | None, typer.Option(help="The true large video, for PSNR.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the curves over the frames to this PNG.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON line for each frame, and one for the whole.")] = False,
) -> None:
    """Measure flicker against the source, and PSNR on luma against the truth, frame by frame.

    Flicker is how much the luma of the result changes from frame to frame, reduced to the size of the source, divided by how
    much the source changes: 1 as the source, more shimmers. Exit code 3 where one of the files is damaged.
    """
    from pipeline.video.quality import check_match, measure_frames, open_video, summary

    if plot and not plot.parent.is_dir():
        raise ConfigError(f"{plot} cannot be written: {plot.parent} is not a folder; make it first")
    videos = [open_video(name) for name in (source, result, *([truth] if truth else []))]
    pair, true = (videos[0], videos[1]), videos[2] if truth else None
    check_match(*pair, true)
    frames = []
    for frame in measure_frames(*pair, true):
        frames.append(frame)
        if as_json:
            print(json.dumps(as_row(frame)), flush=True)
    if plot:
        plot_quality(frames, plot)
    whole = summary(frames)
    print(json.dumps(rounded(whole)) if as_json else in_words(whole))
    damage = [f"{video.name}: {line}" for video in videos for line in video.info.damage]
    for line in damage:
        print(f"damaged: {line}", file=sys.stderr)
    if damage:
        raise typer.Exit(3)


def as_row(frame: FrameQuality) -> dict[str, Any]:
    """As JSON values; null for what is not there, and for the infinite PSNR of equal frames."""
    return rounded(frame._asdict())


def rounded(values: dict[str, Any]) -> dict[str, Any]:
    def of(value: Any) -> Any:  # noqa: ANN401  (a JSON value)
        if not isinstance(value, float):
            return value
        return round(value, 4) if math.isfinite(value) else None

    return {name: of(value) for name, value in values.items()}


def in_words(whole: dict[str, Any]) -> str:
    lines = [
        f"frames   {whole['frames']}",
        f"changes  source {whole['source_change']:.3f}, result {whole['result_change']:.3f} codes from frame to frame",
    ]
    if whole["flicker"] is None:
        lines.append("flicker  the source stands still")
    else:
        lines.append(
            f"flicker  {whole['flicker']:.3f} times the source's; at worst {whole['worst_flicker']:.3f}, "
            f"frame {whole['worst_frame']}"
        )
    if whole["psnr"] is not None:
        lines.append(f"PSNR     {whole['psnr']:.2f} dB on luma; at worst {whole['least_psnr']:.2f} dB")
    return "\n".join(lines)


def plot_quality(frames: list[FrameQuality], path: Path) -> None:
    """Flicker, the changes that it compares, and PSNR where there is one, over the frames."""
    from swinir.train.curves import Line, plot_panels

    def line(title: str, colour: str, name: str) -> Line:
        values = [(frame.frame / max(1, len(frames) - 1), getattr(frame, name)) for frame in frames]
        return Line(title, colour, [(x, y) for x, y in values if y is not None and math.isfinite(y)])

    panels = [
        [line("flicker, 1 as the source", "purple", "flicker")],
        [
            line("change of the result, codes", "red", "result_change"),
            line("change of the source", "grey", "source_change"),
        ],
    ]
    if any(frame.psnr is not None for frame in frames):
        panels.append([line("PSNR on luma, dB", "blue", "psnr")])
    try:
        plot_panels(panels, f"frame {len(frames) - 1}", path)
    except (OSError, ValueError) as error:  # ValueError: a suffix that Pillow does not know
        raise ConfigError(f"{path} cannot be written ({error}); name a .png file") from error
