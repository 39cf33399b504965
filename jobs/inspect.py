"""Show what a video really holds, or hold one against another.

swinir inspect in.mkv
swinir inspect --verify in.mkv out.mp4
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.errors import ConfigError, UpscaleError

if TYPE_CHECKING:  # FFmpeg loads with the first use: the command line's help does without
    from pipeline.video.checks import Check
    from pipeline.video.description import Description, StreamDescription

COLOURS = {"ok": "green", "differs": "red", "lost": "red", "n/a": "dim"}


def inspect(
    files: Annotated[list[str], typer.Argument(help="Videos: paths or URLs; with --verify, the source and the result.")],
    verify: Annotated[bool, typer.Option("--verify", help="Compare two files; exit code 3 where they differ.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines: one per file, or one per check.")] = False,
) -> None:
    """Show streams, times and tags as decoding finds them; --verify compares two files by whatever tool they were made."""
    from pipeline.inputs import open_input
    from pipeline.video.compare import compare
    from pipeline.video.describe import describe

    if verify and len(files) != 2:
        raise ConfigError(f"--verify compares a source and a result, got {len(files)} files: {' '.join(files)}")
    descriptions = []
    for file in files:
        with open_input(file) as media:
            descriptions.append(describe(media, file))
    if verify:
        checks = explained(compare(*descriptions), files[1])
        tell_checks(checks, as_json)
        if any(check.status in ("differs", "lost") for check in checks):
            raise typer.Exit(3)
        return
    for description in descriptions:
        if as_json:
            print(json.dumps(summary(description), ensure_ascii=False))
        else:
            tell(description)


def explained(checks: list[Check], result: str) -> list[Check]:
    """What the report beside a result of ``swinir video`` says of a stream, added to the checks that found it wanting."""
    reasons = reported(result)
    told = []
    for check in checks:
        reason = reasons.get(" ".join(check.name.split()[:2]))
        listed = check.status in ("differs", "lost") and reason is not None
        told.append(check._replace(detail=f"{check.detail} (reported: {reason})") if listed else check)
    return told


def reported(result: str) -> dict[str, str]:
    """Why a stream of the source is not as it was, by its type and index; nothing where no report of ours is to be read."""
    from pipeline.storage import split_url
    from pipeline.video.destination import read_report

    try:
        streams = (read_report(*split_url(result)) or {})["streams"]
        changed = [stream for stream in streams if stream["action"] in ("drop", "convert", "rewrite")]
        return {f"{stream['type']} {stream['index']}": stream["reason"] for stream in changed}
    except (UpscaleError, LookupError, TypeError):
        return {}


def tell_checks(checks: list[Check], as_json: bool) -> None:
    if as_json:
        for check in checks:
            print(json.dumps(check._asdict(), ensure_ascii=False))
        return
    table = Table("", "check", "what was found", box=None)
    for name, status, detail in checks:
        table.add_row(f"[{COLOURS[status]}]{status}[/]", name, escape(detail))
    console = Console(highlight=False)
    console.print(table)
    bad = sum(check.status in ("differs", "lost") for check in checks)
    console.print(f"{bad} of {len(checks)} checks differ" if bad else f"all {len(checks)} checks hold")


def summary(description: Description) -> dict[str, Any]:
    """All of a description but the long lists, as JSON values; times in seconds, rationals as "num/den"."""
    return {
        "file": description.name,
        "container": description.container,
        "duration_s": None if description.duration is None else float(description.duration),
        "tags": description.tags,
        "chapters": [
            {"start_s": float(start), "end_s": float(end), "title": title} for start, end, title in description.chapters
        ],
        "streams": [stream_summary(stream) for stream in description.streams],
        "damage": list(description.damage),
        "notes": list(description.notes),
    }


def stream_summary(stream: StreamDescription) -> dict[str, Any]:
    picture = stream.picture
    row: dict[str, Any] = {
        "index": stream.index, "type": stream.type, "codec": stream.codec, "language": stream.language,
        "disposition": list(stream.disposition), "time_base": str(stream.time_base), "packets": len(stream.hashes),
        "tags": stream.tags,
    }  # fmt: skip
    first = next(iter(stream.shown or stream.packet_pts), None)
    if first is not None:
        row |= {"first_pts": first, "start_s": float(first * stream.time_base)}
    if stream.type == "audio":
        row |= {"sample_rate": stream.sample_rate, "layout": stream.layout, "samples": stream.num_samples,
                "skipped_samples": list(stream.skipped_samples)}  # fmt: skip
    if picture is not None and stream.end is not None:
        gaps = sorted({b - a for a, b in zip(stream.shown, stream.shown[1:], strict=False)})
        row |= {
            "frames": len(stream.shown),
            "duration_s": float((stream.end - stream.shown[0]) * stream.time_base),
            "frame_ticks": gaps if len(gaps) < 3 else [gaps[0], gaps[-1]],
            "rate": str(picture.rate),
            "width": picture.width, "height": picture.height, "pix_fmt": picture.pix_fmt,
            "sample_aspect_ratio": str(picture.sample_aspect_ratio or "not stated"),
            "display_matrix": picture.display_matrix,
            "range": {0: "not stated", 1: "limited", 2: "full"}[picture.color_range],
            "matrix": code_point(picture.color_space), "primaries": code_point(picture.color_primaries),
            "transfer": code_point(picture.color_trc),
            "mastering_display": picture.mastering and [str(number) for number in picture.mastering],
            "content_light_level": picture.light, "dynamic_hdr": list(picture.dynamic_hdr),
            "alpha": picture.alpha, "interlaced_frames": picture.num_interlaced,
        }  # fmt: skip
    return row


def code_point(code: int) -> int | str:
    """Of ITU-T H.273."""
    return "not stated" if code == 2 else code


def tell(description: Description) -> None:
    """The summary for a person: what is not stated, empty or zero is left out."""
    console = Console(highlight=False, markup=False)
    page = summary(description)
    table = Table(show_header=False, box=None)
    for key in ("file", "container", "duration_s", "tags", "chapters", "damage", "notes"):
        _row(table, key, page[key])
    for stream in page["streams"]:
        table.add_row("")
        table.add_row(f"stream {stream.pop('index')}", f"{stream.pop('type')} {stream.pop('codec')}")
        for key, value in stream.items():
            _row(table, f"  {key}", value)
    console.print(table)


def _row(table: Table, key: str, value: Any) -> None:  # noqa: ANN401  (a JSON value)
    if value in (None, "", "und", "not stated", False, [], {}) or (key.strip() == "interlaced_frames" and not value):
        return
    if isinstance(value, dict):
        value = "\n".join(f"{name}: {text}" for name, text in value.items())
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        value = "\n".join(" ".join(map(str, entry.values())) for entry in value)
    elif isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    table.add_row(key.replace("_", " "), str(value))
