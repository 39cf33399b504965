"""What a container does not say any more of a source's streams: tags, dispositions, chapters, priming."""

from __future__ import annotations

from collections.abc import Iterable

from av.container import InputContainer
from av.stream import Disposition, Stream

from pipeline.video.labels import kept_tags, telling_tags
from pipeline.video.streams import Opening, StreamPlan, found_again


def lost_tags(
    result: InputContainer, container: InputContainer, plans: Iterable[StreamPlan], container_format: str
) -> list[str]:
    """What of tags, dispositions and chapters the result does not hold, a line for the file and for each stream.

    Which stream is the default is another matter: players take the first where nobody says. So is the track that a file's
    time code may have become.
    """
    lines = []
    found = found_again(result, plans)
    time_codes = {("timecode", stream.metadata.get("timecode")) for stream in result.streams}
    pairs: list[tuple[str, Stream | InputContainer, Stream | InputContainer]] = [("the file", container, result)]
    pairs += [(f"stream {index}", container.streams[index], stream) for index, stream in found.items()]
    for what, source, made in pairs:
        kept = {key.lower() for key in kept_tags(made, "")}
        lost = [key for key in telling_tags(source, container) if key.lower() not in kept]
        if lost := [key for key in lost if (key, source.metadata.get(key)) not in time_codes]:
            lines.append(f"tags of {what} that {container_format} cannot hold: {', '.join(lost)}")
    for index, stream in found.items():
        missing = container.streams[index].disposition & ~stream.disposition
        names = [flag.name for flag in Disposition if flag & missing and flag.name and flag != Disposition.default]
        if names:
            lines.append(f"stream {index} is no more called what {container_format} cannot say: {', '.join(names)}")
    if len(result.chapters()) < len(container.chapters()):
        lines.append(f"chapters that {container_format} cannot hold: {len(container.chapters())}")
    return lines


def lost_priming(plans: list[StreamPlan], openings: dict[int, Opening]) -> list[str]:
    """A transport stream has no place to say which samples are not to be heard."""
    counts = {p.index: openings[p.index].num_skipped for p in plans if p.action == "copy" and p.index in openings}
    return [
        f"stream {index}: its first {count} samples, which are not to be heard, will be: mpegts cannot hide them"
        for index, count in counts.items()
        if count
    ]
