"""Hold one file's description against another's: stream by stream, time by time, tag by tag; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import zip_longest

from pipeline.video.checks import Check, Pair, as_seconds, as_text, equal_check, kept_check, series_check, time_check, worst_of
from pipeline.video.colours import guessed_matrix
from pipeline.video.description import Description, Picture, StreamDescription
from pipeline.video.header import UNSTATED
from pipeline.video.labels import is_stale
from pipeline.video.tags import UNSPECIFIED
from pipeline.video.turn import on_its_side, turn_of

# Of streams: what muxers write of themselves, and what is compared under a name of its own.
OWN_TAGS = {"handler_name", "vendor_id", "alpha_mode"}
COMPARED = {"language", "title", "name", "filename", "mimetype"}


def compare(source: Description, result: Description) -> list[Check]:
    """Every check of ``result`` against ``source``, in the order of the source's streams.

    Times are compared from the first frame of the video on (of sound, where there is no video), since a container may move
    all streams alike; sizes may be multiplied.
    """
    pairs, lost, extra = paired(source, result)
    clock = next((pair for pair in pairs if pair.source.picture), next((p for p in pairs if p.source.packet_pts), None))
    checks = [*_files(source, result, clock)]
    # Where several videos call themselves the default, players show the first: the job leaves it to the upscaled one.
    first = {r.index for s, r in pairs if s.type == "video" and s.hashes != r.hashes and "default" in r.disposition}
    for pair in pairs:
        if pair.source.picture and pair.result.picture:
            checks += _pictures(pair, pair.source.picture, pair.result.picture, result.container)
        if pair is not clock and clock:
            checks += _offset(pair, clock)
        if pair.source.hashes and not (pair.source.picture and pair.source.hashes != pair.result.hashes):
            checks += _payload(pair)
        shows_another = bool(first) and pair.source.type == "video" and pair.result.index not in first
        checks += [*_labels(pair, shows_another, source.tags, result.tags, result.container)]
    checks += [Check(f"{s.type} {s.index}", "lost", f"{s.codec}, {s.language}: not in the result") for s in lost]
    checks += [Check(f"{s.type}", "differs", f"{s.codec}, {s.language}: in the result alone, stream {s.index}") for s in extra]
    return checks


def paired(source: Description, result: Description) -> tuple[list[Pair], list[StreamDescription], list[StreamDescription]]:
    """Streams that correspond: of equal payload first, then of equal type, codec and language, then of equal type, in order.

    Also what the source alone has, and what the result alone has.
    """
    left, right, pairs = list(source.streams), list(result.streams), []
    keys: list[Callable[[StreamDescription], object]] = [
        lambda s: (s.type, s.hashes) if s.hashes else s,
        lambda s: (s.type, s.codec, s.language),
        lambda s: (s.type, s.language),
        lambda s: s.type,
    ]
    for key in keys:
        for stream in list(left):
            found = next((other for other in right if key(other) == key(stream)), None)
            if found:
                pairs.append(Pair(stream, found))
                left.remove(stream)
                right.remove(found)
    return sorted(pairs, key=lambda pair: pair.source.index), left, right


def _files(source: Description, result: Description, clock: Pair | None) -> Iterator[Check]:
    for description, which in ((source, "source"), (result, "result")):
        if description.damage or which == "result":
            yield Check(f"{which} damage", "differs" if description.damage else "ok", "; ".join(description.damage) or "none")
    if clock:
        before, after = (_first(stream) * stream.time_base for stream in clock)
        moved = "" if before == after else f" -> {as_seconds(after)}, all streams alike"
        yield Check("start", "ok", f"{as_seconds(before)}{moved}")
    yield from _chapters(source, result, clock)
    time_codes = [("timecode", code) for stream in result.streams if (code := stream.tag("timecode"))]  # of the file in an MXF
    yield _tags("tags of the file", source.tags, dict(time_codes) | result.tags)


def _first(stream: StreamDescription) -> int:
    return next(iter(stream.shown or stream.packet_pts), 0)


def _chapters(source: Description, result: Description, clock: Pair | None) -> Iterator[Check]:
    if not source.chapters and not result.chapters:
        yield Check("chapters", "n/a", "none")
        return
    zeros = [_first(stream) * stream.time_base for stream in clock] if clock else [Fraction(0), Fraction(0)]
    tick = max(clock.tolerance if clock else Fraction(0), Fraction(1, 1000))
    worst, titles = Fraction(0), 0
    for a, b in zip(source.chapters, result.chapters, strict=False):
        worst = max(worst, *(abs((x - zeros[0]) - (y - zeros[1])) for x, y in zip(a[:2], b[:2], strict=True)))
        titles += a[2] != b[2]
    counts = f"{len(source.chapters)} -> {len(result.chapters)}"
    if len(result.chapters) < len(source.chapters):
        yield Check("chapters", "lost", counts)
    elif len(result.chapters) > len(source.chapters) or titles or worst > tick:
        yield Check("chapters", "differs", f"{counts}, {titles} titles differ, times by up to {as_seconds(worst)}")
    else:
        yield Check("chapters", "ok", f"{len(source.chapters)}, times within {as_seconds(worst)}")


def _pictures(pair: Pair, old: Picture, new: Picture, container: str) -> Iterator[Check]:
    name, (source, result) = pair.name, pair
    yield equal_check(f"{name} frames", len(source.shown), len(result.shown))
    yield series_check(f"{name} frame times", pair, source.shown, result.shown, source.shown[0], result.shown[0])
    if container != "mpegts":
        yield from _durations(pair)
    else:
        yield Check(f"{name} duration", "n/a", "a transport stream states no duration of its last frame")
    yield from _geometry(name, old, new, container in ("mpegts", "gif"))
    yield from _colour(name, old, new)
    form = f"{old.pix_fmt} -> {new.pix_fmt}"
    yield Check(f"{name} depth", "ok" if new.depth >= old.depth else "lost", form)
    coarser = new.chroma[0] > old.chroma[0] or new.chroma[1] > old.chroma[1]
    yield Check(f"{name} chroma", "lost" if coarser or (new.kind == "gray" != old.kind) else "ok", form)
    yield kept_check(f"{name} alpha", old.alpha or None, new.alpha or None)
    yield equal_check(f"{name} interlaced frames", old.num_interlaced, new.num_interlaced)


def _durations(pair: Pair) -> Iterator[Check]:
    for label, frame in (("duration", 0), ("last frame's duration", -1)):
        yield time_check(f"{pair.name} {label}", pair, *(((s.end or 0) - s.shown[frame]) * s.time_base for s in pair))


def _geometry(name: str, old: Picture, new: Picture, holds_no_turn: bool) -> Iterator[Check]:
    size = f"{old.width}x{old.height} -> {new.width}x{new.height}"
    # Where the result states no turn, its pixels may be turned, which only a change of sides shows.
    turn = turn_of(old.display_matrix) if new.display_matrix is None else None
    turned = on_its_side(turn)
    width, height = (old.height, old.width) if turned else (old.width, old.height)
    across, down = Fraction(new.width, width), Fraction(new.height, height)
    old_sar, new_sar = old.sample_aspect_ratio or Fraction(1), new.sample_aspect_ratio or Fraction(1)
    if turned:
        old_sar = 1 / old_sar
    # Sizes are whole numbers: the shape on the screen may be off by what one pixel makes.
    same_shape = abs(across * new_sar / (down * old_sar) - 1) * min(new.width, new.height) <= 1
    if len(new.formats) > 1:
        yield Check(f"{name} size", "differs", f"changes midway: {', '.join(f'{w}x{h} {f}' for w, h, f in new.formats)}")
    else:
        ratio = f"x{float(across):g}" if across == down else f"x{float(across):g} by x{float(down):g}"
        yield Check(f"{name} size", "ok" if across == down or same_shape else "differs", f"{size}, {ratio}")
    kept = old_sar == new_sar or (across != down and same_shape)
    yield Check(f"{name} sample aspect", "ok" if kept else "differs", f"{old_sar} -> {new_sar}")
    if turn and (turned or holds_no_turn):
        yield Check(f"{name} rotation", "ok", "applied to the pixels")
    else:
        # The last column and the translation do not show; sizes change with the picture.
        yield kept_check(f"{name} rotation", _linear(old.display_matrix), _linear(new.display_matrix))


def _linear(matrix: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """What of a display matrix turns and mirrors; None where that is nothing."""
    linear = None if matrix is None else (matrix[0], matrix[1], matrix[3], matrix[4])
    return None if linear == (65536, 0, 0, 65536) else linear


def _colour(name: str, old: Picture, new: Picture) -> Iterator[Check]:
    converted = old.kind == "rgb" and new.kind != "rgb"
    if {old.color_range, new.color_range} == {0, 1}:
        yield Check(f"{name} range", "ok", "limited, which need not be stated")
    else:
        yield _code(f"{name} range", old.color_range or None, new.color_range or None, converted)
    guess = guessed_matrix(old.width, old.height)
    # A player would take the larger picture for another matrix, so it is stated.
    stated = converted or (new.color_space == guess != guessed_matrix(new.width, new.height))
    for what in ("color_space", "color_primaries", "color_trc"):
        a, b = (None if code == UNSPECIFIED else code for code in (getattr(old, what), getattr(new, what)))
        if what == "color_space" and a == 0 and old.chroma != (0, 0):
            a = None  # RGB, which has no coarser chroma: a mistake, and the job takes it for nothing said
        if what == "color_space" and new.kind in ("rgb", "gray"):
            yield Check(f"{name} matrix", "n/a", f"{new.kind} has none")
            continue
        label = {"color_space": "matrix", "color_primaries": "primaries", "color_trc": "transfer"}[what]
        yield _code(f"{name} {label}", a, b, stated and what == "color_space")
    sites = [None if p.chroma_location == UNSTATED else p.chroma_location for p in (old, new)]
    if old.kind == new.kind == "yuv" and old.chroma == new.chroma and old.chroma != (0, 0):
        implied = sites == [None, "left"]  # what H.264 and HEVC mean by stating none
        yield Check(f"{name} chroma location", "ok", "left") if implied else kept_check(f"{name} chroma location", *sites)
    yield kept_check(f"{name} mastering display", old.mastering, new.mastering)
    yield kept_check(f"{name} content light level", old.light, new.light)
    yield kept_check(f"{name} dynamic HDR", old.dynamic_hdr or None, new.dynamic_hdr or None)


def _code(name: str, old: int | None, new: int | None, may_state: bool) -> Check:
    if old is None and new is not None and may_state:
        return Check(name, "ok", f"not stated -> {new}, as it was meant")
    if may_state and old != new and new is not None:
        return Check(name, "ok", f"{old} -> {new}, converted")
    return kept_check(name, old, new)


def _offset(pair: Pair, clock: Pair) -> Iterator[Check]:
    """Where the stream lies against the video: its packets, and for sound the first sample that is heard."""
    source, result = pair
    rate = source.sample_rate
    tolerance = max(pair.tolerance, clock.tolerance)
    if rate and (source.time_base * rate > 1 or tolerance):
        # Times of sound that were rounded to coarse ticks may be those of its samples again.
        tolerance = max(tolerance, source.time_base) + Fraction(1, rate)
    zeros = [_first(stream) * stream.time_base for stream in clock]
    if source.type in ("attachment", "cover") or not source.packet_pts or not result.packet_pts:
        return
    offsets = [_first(s) * s.time_base - zero for s, zero in zip(pair, zeros, strict=True)]
    off = abs(offsets[0] - offsets[1])
    detail = f"{as_seconds(offsets[0])}" if not off else f"{as_seconds(offsets[0])} -> {as_seconds(offsets[1])}"
    yield Check(f"{pair.name} offset to the video", "ok" if off <= tolerance else "differs", detail)
    if source.picture and source.hashes != result.hashes:
        return  # encoded anew: packets come in another order, and the frames' times are compared
    times = [[t * s.time_base - zero for t in s.packet_pts] for s, zero in zip(pair, zeros, strict=True)]
    worst, at = worst_of(times[0], times[1])
    yield Check(
        f"{pair.name} packet times",
        "ok" if worst <= tolerance and len(times[0]) == len(times[1]) else "differs",
        f"equal, {len(times[0])}" if not worst else f"off by up to {as_seconds(worst)}, at packet {at} of {len(times[0])}",
    )


def _payload(pair: Pair) -> Iterator[Check]:
    source, result = pair
    yield equal_check(f"{pair.name} packets", len(source.hashes), len(result.hashes))
    bad = next((i for i, (a, b) in enumerate(zip_longest(source.hashes, result.hashes)) if a != b), None)
    yield Check(
        f"{pair.name} payload",
        "ok" if bad is None else "differs",
        "equal" if bad is None else f"{source.codec} -> {result.codec}, first at packet {bad}",
    )
    if source.type == "audio":
        yield equal_check(f"{pair.name} samples", source.num_samples, result.num_samples)
        yield equal_check(f"{pair.name} priming", source.skipped_samples, result.skipped_samples)


def _labels(
    pair: Pair, shows_another: bool, of_source: dict[str, str], of_result: dict[str, str], container: str
) -> Iterator[Check]:
    """``shows_another``: another video of the result is the upscaled one, and its default; then the tags of both files.

    What a stream says as its file does is kept where the result's file says it.
    """
    source, result = pair
    if not source.picture:
        yield equal_check(f"{pair.name} codec", source.codec, result.codec)
    yield kept_check(f"{pair.name} language", _stated_language(source), _stated_language(result))
    yield kept_check(f"{pair.name} title", source.title, result.title)
    for tag in ("filename", "mimetype"):
        if source.tag(tag):
            yield kept_check(f"{pair.name} {tag}", source.tag(tag), result.tag(tag))
    yield _disposition(f"{pair.name} disposition", source.disposition, result.disposition, shows_another, container)
    old, new = ({k: v for k, v in s.tags.items() if k.lower() not in OWN_TAGS | COMPARED} for s in pair)
    common = {k.lower(): v for k, v in of_source.items()}.items() & {k.lower(): v for k, v in of_result.items()}.items()
    yield _tags(f"{pair.name} tags", old, new | {k: v for k, v in old.items() if (k.lower(), v) in common and k not in new})


def _disposition(name: str, old: tuple[str, ...], new: tuple[str, ...], shows_another: bool, container: str) -> Check:
    """An mp4 always plays the first stream of a kind, so it calls it the default; a transport stream has no word for that."""
    if container == "mpegts" and set(old) - set(new) == {"default"}:
        return Check(name, "n/a", "a transport stream names no default")
    if shows_another and set(old) - set(new) == {"default"}:
        return Check(name, "ok", f"{as_text(new or None)}; the upscaled video is the default one")
    if set(new) - set(old) == {"default"} and set(old) <= set(new):
        return Check(name, "ok", f"{as_text(old or None)}; default in the result's container")
    return kept_check(name, old or None, new or None)


def _stated_language(stream: StreamDescription) -> str | None:
    return None if stream.language == "und" else stream.language


def _tags(name: str, source: dict[str, str], result: dict[str, str]) -> Check:
    """Names are compared without case, since Matroska keeps its own in capitals."""
    old, new = ({k.lower(): v for k, v in tags.items() if not is_stale(k)} for tags in (source, result))
    if not old:
        return Check(name, "n/a", "none")
    lost = sorted(old.keys() - new.keys())
    changed = sorted(key for key in old.keys() & new.keys() if old[key] != new[key])
    if changed:
        return Check(name, "differs", ", ".join(f"{key}: {old[key]!r} -> {new[key]!r}" for key in changed))
    return Check(name, "lost" if lost else "ok", ", ".join(lost) if lost else f"{len(old)} equal")
