"""Titles, languages, dates and chapters: what of them says something of the result too, and onto it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction

from av.container import InputContainer, OutputContainer
from av.stream import Stream

# What described the source and not the result, at the beginning of a tag's name in capitals.
STALE_TAGS = ("BPS", "NUMBER_OF_FRAMES", "NUMBER_OF_BYTES", "_STATISTICS_", "DURATION", "ENCODER", "VENDOR_ID")
CONTAINER_TAGS = ("major_brand", "minor_version", "compatible_brands")
MOV_TAGS = ("handler_name", "vendor_id")  # of a stream, which mean nothing elsewhere
# Handler names that the programs and cameras that wrote the file give to every track of a kind.
GENERIC_NAMES = re.compile(
    r".*(video|audio|sound|subtitle|text|caption|data|metad|meta|media|hint|time ?code)\s*handler?"
    r"|(video|audio|sound|subtitles?|text|vide|soun|sbtl|tmcd|meta)?( media)?( track)?"
    r"|core media .*|iso media file produced by .*|(gpac|l-smash|gopro|dji|ambarella|insta360|twitter-vork)\b.*",
    re.IGNORECASE | re.DOTALL,
)
IMPLIED_TAGS = ("alpha_mode", "filename", "mimetype")  # not kept as such


def copy_container_tags(out: OutputContainer, container: InputContainer, shift: Fraction = Fraction(0)) -> None:
    """Title, date and the like, and the chapters, ``shift`` seconds later."""
    out.metadata.update(kept_tags(container, out.format.name))
    chapters = container.chapters()
    for chapter in chapters:
        assert chapter["time_base"]
        ticks = round(shift / chapter["time_base"])
        chapter["start"] += ticks
        chapter["end"] += ticks
    if chapters:
        out.set_chapters(chapters)


def copy_tags(source: Stream, target: Stream) -> None:
    target.metadata.update(kept_tags(source, target.container.format.name))
    target.disposition = source.disposition


def kept_tags(source: Stream | InputContainer, container_format: str) -> dict[str, str]:
    """The tags that say something of the result too."""
    tags = {key: value for key, value in source.metadata.items() if not is_stale(key)}
    if isinstance(source, Stream):
        if "name" in tags:  # what an mp4 calls the title of a track
            tags.setdefault("title", tags.pop("name"))
        if container_format not in ("mp4", "mov"):
            if title := title_of(tags):
                tags.setdefault("title", title)
            tags = {key: value for key, value in tags.items() if key.lower() not in MOV_TAGS}
    return tags


def title_of(tags: Mapping[str, str]) -> str | None:
    """The title of a track by its tags; an mp4 keeps it as its ``name``, and most programs write it as that of the handler."""
    named = {key.lower(): value for key, value in tags.items()}
    handler = named.get("handler_name", "").strip()
    return named.get("title") or named.get("name") or (None if GENERIC_NAMES.fullmatch(handler) else handler)


def telling_tags(source: Stream | InputContainer, container: InputContainer) -> list[str]:
    """The tags of a file or of a stream in it whose loss is worth a word, sorted."""
    file_made_at = None if source is container else container.metadata.get("creation_time")
    says_nothing = {("language", "und"), ("creation_time", file_made_at)}
    tags = kept_tags(source, "").items()
    return sorted(key for key, value in tags if key.lower() not in IMPLIED_TAGS and (key, value) not in says_nothing)


def is_stale(tag: str) -> bool:
    return tag.upper().startswith(STALE_TAGS) or tag.lower() in CONTAINER_TAGS
