"""EXIF blocks changed where they lie: orientation, size and thumbnail, and not a byte besides.

Maker's notes hold offsets into the block that nobody can move, so it is never written anew. A block that is no TIFF structure
(TIFF 6.0, section 2; Exif 2.32, section 4.5) passes as it is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

PREFIX = b"Exif\0\0"
ORIENTATION = 0x0112
POINTERS = (0x8769, 0x8825, 0xA005)  # to the directories Exif, GPS and interoperability
THUMBNAIL_AT, THUMBNAIL_SIZE = 0x0201, 0x0202
WIDTHS, HEIGHTS = (0x0100, 0xA002), (0x0101, 0xA003)
RESOLUTIONS = ((0x011A, 0x011B), (0xA20E, 0xA20F))  # across and down: of the picture, of the focal plane
SHORT, LONG = 3, 4
MOST_DIRECTORIES = 8  # the standard has four; what points to more is made to keep us busy
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}

# What in a TIFF file's own directory describes how its samples are stored, what is kept apart from EXIF, and Photoshop's layers
# (0x935C), which are pictures of the old size.
STORAGE_TAGS = {
    *range(0x00FE, 0x010C), 0x0111, ORIENTATION, 0x0115, 0x0116, 0x0117, 0x0118, 0x0119, 0x011C, 0x0120, 0x0121, 0x0122,
    0x0123, 0x0124, 0x0125, 0x013D, *range(0x0140, 0x0160), *range(0x0200, 0x0215), 0x02BC, 0x8649, 0x8773, 0x935C,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """One field: its 12 bytes lie at ``at``, its value at ``value_at``."""

    tag: int
    kind: int
    count: int
    at: int
    value_at: int

    @property
    def size_bytes(self) -> int:
        return TYPE_BYTES.get(self.kind, 0) * self.count


def bare(exif: object) -> bytes | None:
    """The TIFF structure alone, without the six bytes that JPEG files put before it; None where there is none."""
    return exif.removeprefix(PREFIX) or None if isinstance(exif, bytes) else None


def orientation(exif: bytes | None) -> int:
    """1 to 8 as the Exif standard numbers them; 1, upright, where nothing sensible is said."""
    for entry in _directories(exif or b""):
        if entry.tag == ORIENTATION and entry.kind in (SHORT, LONG):
            value = _unsigned(exif or b"", entry)
            return value if 1 <= value <= 8 else 1
    return 1


def upright(exif: bytes, turn: int) -> bytes:
    """With orientation 1 in place of ``turn``, and without the thumbnail, which shows the picture as it was."""
    block, entries = bytearray(exif), list(_directories(exif))
    for entry in entries:
        if entry.tag == ORIENTATION and turn != 1:
            _write(block, entry, 1)
    if turn >= 5:  # across has become down
        first = {entry.tag: entry for entry in reversed(entries)}
        for across, down in RESOLUTIONS:
            if across in first and down in first:
                _swap(block, first[across], first[down])
    return _without_thumbnail(block)


def with_resolution(dpi: tuple[float, float]) -> bytes:
    """A block that says nothing but dots an inch, across and down, for formats that have no other place for them."""
    values = b"".join(struct.pack("<II", round(number * 1000), 1000) for number in dpi)
    fields = [(0x011A, 5, 50), (0x011B, 5, 58), (0x0128, SHORT, 2)]  # XResolution, YResolution, ResolutionUnit: inch
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in fields)
    return b"II*\0" + struct.pack("<IH", 8, len(fields)) + entries + bytes(4) + values


def with_size(exif: bytes, width: int, height: int) -> bytes:
    """With every field that states the picture's size set to this."""
    block = bytearray(exif)
    for entry in _directories(exif):
        if entry.tag in (*WIDTHS, *HEIGHTS):
            _write(block, entry, width if entry.tag in WIDTHS else height)
    return bytes(block)


def of_tiff(data: bytes) -> bytes | None:
    """A block of the fields in a TIFF file that are not about its storage; None where there are none.

    Here values must move. Files of more than 4 GiB (BigTIFF), whose structure is another, give None.
    """
    order = _byte_order(data)
    if not order:
        return None
    block = bytearray(data[:4] + struct.pack(order + "I", 8))
    _copy_directory(block, data, order, struct.unpack_from(order + "I", data, 4)[0], depth=0)
    return bytes(block) if 8 + 2 + 4 < len(block) <= len(data) else None


def _copy_directory(block: bytearray, data: bytes, order: str, at: int, depth: int) -> None:
    fields = {entry.tag: entry for entry in _fields(data, order, at) if entry.value_at + entry.size_bytes <= len(data)}
    wanted = [tag for tag in fields if depth or tag not in STORAGE_TAGS]
    start = len(block)
    block += struct.pack(order + "H", len(wanted)) + bytes(12 * len(wanted) + 4)
    for index, tag in enumerate(wanted):
        entry = fields[tag]
        value = data[entry.value_at : entry.value_at + entry.size_bytes]
        if tag in POINTERS and depth < 2:
            value = struct.pack(order + "I", len(block))
            _copy_directory(block, data, order, _unsigned(data, entry), depth + 1)
        elif len(value) > 4:
            # A damaged file may have many fields name the same bytes.
            place, value = len(block), value if len(block) <= len(data) else b""
            block += value + bytes(len(value) % 2)
            value = struct.pack(order + "I", place)
        struct.pack_into(order + "HHI4s", block, start + 2 + 12 * index, tag, entry.kind, entry.count, value)


def _without_thumbnail(block: bytearray) -> bytes:
    order = _byte_order(block)
    if not order:
        return bytes(block)
    first = struct.unpack_from(order + "I", block, 4)[0]
    link = _link(block, order, first)
    second = struct.unpack_from(order + "I", block, link)[0] if link else 0
    if not second:
        return bytes(block)
    thumbnail = list(_fields(block, order, second))
    sizes = {entry.tag: _unsigned(block, entry) for entry in thumbnail if entry.tag in (THUMBNAIL_AT, THUMBNAIL_SIZE)}
    struct.pack_into(order + "I", block, link, 0)
    kept = bytearray(len(block))
    _mark(kept, 0, 8)
    for at, size in _extents(block, order, _directories(bytes(block)), first):
        _mark(kept, at, size)
    start, size = sizes.get(THUMBNAIL_AT, 0), sizes.get(THUMBNAIL_SIZE, 0)
    ours = [(second, 2 + 12 * len(thumbnail) + 4), (start, size), *((e.value_at, e.size_bytes) for e in thumbnail)]
    dropped = bytearray(len(block))
    for at, size in ours:
        _mark(dropped, at, size)
    for at, gone in enumerate(dropped):
        if gone and not kept[at]:
            block[at] = 0
    end = len(block)
    while end and dropped[end - 1] and not kept[end - 1]:
        end -= 1
    return bytes(block[:end])


def _extents(block: bytearray, order: str, entries: Iterator[Entry], first: int) -> Iterator[tuple[int, int]]:
    """Where the given fields, their values and their directories lie: (offset, bytes)."""
    yield first, 2
    link = _link(block, order, first)
    if link:
        yield link, 4
    for entry in entries:
        yield entry.at, 12
        yield entry.value_at, entry.size_bytes
        if entry.tag in POINTERS:
            at = _unsigned(block, entry)
            yield at, 2
            link = _link(block, order, at)
            if link:
                yield link, 4


def _mark(mask: bytearray, at: int, size: int) -> None:
    end = min(at + size, len(mask))
    if at < end:
        mask[at:end] = b"\1" * (end - at)


def _byte_order(block: bytes | bytearray) -> str:
    return {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(block[:4]), "") if len(block) >= 8 else ""


def _directories(block: bytes) -> Iterator[Entry]:
    """The fields of the picture's directory and of those it points to, but not of the thumbnail's."""
    order = _byte_order(block)
    if not order:
        return
    pending: list[int] = [struct.unpack_from(order + "I", block, 4)[0]]
    seen: set[int] = set()
    while pending:
        at = pending.pop(0)
        if at in seen or len(seen) == MOST_DIRECTORIES:
            continue
        seen.add(at)
        for entry in _fields(block, order, at):
            if entry.tag in POINTERS:
                pending.append(_unsigned(block, entry))
            yield entry


def _fields(block: bytes | bytearray, order: str, at: int) -> Iterator[Entry]:
    """The fields of one directory, as far as they lie inside the block."""
    if not 8 <= at <= len(block) - 2:
        return
    for index in range(struct.unpack_from(order + "H", block, at)[0]):
        place = at + 2 + 12 * index
        if place + 12 > len(block):
            return
        tag, kind, count, value = struct.unpack_from(order + "HHII", block, place)
        inline = TYPE_BYTES.get(kind, 0) * count <= 4
        yield Entry(tag, kind, count, place, place + 8 if inline else value)


def _link(block: bytes | bytearray, order: str, at: int) -> int:
    """Where a directory says which comes next; 0 where that lies outside the block."""
    if not 8 <= at <= len(block) - 2:
        return 0
    place = at + 2 + 12 * int(struct.unpack_from(order + "H", block, at)[0])
    return place if place + 4 <= len(block) else 0


def _unsigned(block: bytes | bytearray, entry: Entry) -> int:
    """The value of a field of one SHORT or LONG; 0 for others."""
    if entry.count != 1 or entry.kind not in (SHORT, LONG, 13):
        return 0
    order = _byte_order(block)
    return int(struct.unpack_from(order + ("H" if entry.kind == SHORT else "I"), block, entry.value_at)[0])


def _swap(block: bytearray, one: Entry, other: Entry) -> None:
    """Let two fields of one kind and size change their values."""
    size = one.size_bytes
    end = max(one.value_at, other.value_at) + size
    if (one.kind, one.count) != (other.kind, other.count) or end > len(block) or abs(one.value_at - other.value_at) < size:
        return
    first, second = (slice(entry.value_at, entry.value_at + size) for entry in (one, other))
    block[first], block[second] = block[second], block[first]


def _write(block: bytearray, entry: Entry, value: int) -> None:
    """Set a field of one SHORT or LONG; a SHORT grows into a LONG where the value needs it, in the same four bytes."""
    if entry.count != 1 or entry.kind not in (SHORT, LONG):
        return
    order = _byte_order(block)
    kind = LONG if value > 0xFFFF else entry.kind
    struct.pack_into(order + "H", block, entry.at + 2, kind)
    struct.pack_into(order + ("I" if kind == LONG else "HH"), block, entry.at + 8, *([value] if kind == LONG else [value, 0]))
