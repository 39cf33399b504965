"""What picture files say of their colours without a profile: PNG in chunks, AVIF in a box that becomes such a chunk.

The code points of both are those of ITU-T H.273.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from pipeline.dataset import png
from swinir.colour import LIKE_SRGB_PRIMARIES, LIKE_SRGB_TRANSFER

RGB_OF_FULL_RANGE = b"\0\1"  # the end of cICP
SRGB_GAMMA, GAMMA_ROUNDING = 45455, 500  # gAMA is also written as 0.45; this much changes no sample of 8 bits by more than 1
SRGB_CHROMATICITIES, CHROMATICITY_ROUNDING = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000), 100


def are_srgb(chunks: Iterable[png.Chunk], icc: bytes | None) -> bool:
    """Whether a file without these chunks of PNG has the same colours: those of its profile, or sRGB.

    Of several statements the highest counts: cICP, the profile, sRGB, then gAMA and cHRM (PNG, section 4.3).
    """
    stated = dict(reversed(list(chunks)))
    if b"cICP" in stated:
        primaries, transfer, rest = stated[b"cICP"][:1], stated[b"cICP"][1:2], stated[b"cICP"][2:]
        return _like_srgb(int.from_bytes(primaries, "big"), int.from_bytes(transfer, "big")) and rest == RGB_OF_FULL_RANGE
    if icc or b"sRGB" in stated:
        return True
    return _near(stated.get(b"gAMA"), (SRGB_GAMMA,), GAMMA_ROUNDING) and _near(
        stated.get(b"cHRM"), SRGB_CHROMATICITIES, CHROMATICITY_ROUNDING
    )


def chunk_of_avif(data: bytes) -> png.Chunk | None:
    """The colour box of the primary picture of a file as cICP; None where it says sRGB, or is not found."""
    try:
        return _colour_box(data)
    except (struct.error, IndexError):  # boxes that are cut short; whether the picture is damaged, its decoder says
        return None


def _colour_box(data: bytes) -> png.Chunk | None:
    meta = dict(_boxes(dict(_boxes(data)).get(b"meta", b"")[4:]))
    parts = dict(_boxes(meta.get(b"iprp", b"")))
    if not {b"ipco", b"ipma"} <= parts.keys():
        return None
    properties = list(_boxes(parts[b"ipco"]))
    for number in _numbers(parts[b"ipma"], int.from_bytes(meta.get(b"pitm", b"")[4:], "big")):
        kind, content = properties[number - 1] if 0 < number <= len(properties) else (b"", b"")
        if kind == b"colr" and content[:4] == b"nclx":
            primaries, transfer = struct.unpack_from(">HH", content, 4)
            if max(primaries, transfer) > 255 or _like_srgb(primaries, transfer):
                return None
            return b"cICP", bytes([primaries, transfer]) + RGB_OF_FULL_RANGE
    return None


def _like_srgb(primaries: int, transfer: int) -> bool:
    return primaries in LIKE_SRGB_PRIMARIES and transfer in LIKE_SRGB_TRANSFER


def _near(content: bytes | None, wanted: tuple[int, ...], rounding: int) -> bool:
    """Whether a chunk of whole numbers is not there, or has about the numbers that are ``wanted``."""
    if content is None:
        return True
    if len(content) != 4 * len(wanted):
        return False
    found = struct.unpack(f">{len(wanted)}I", content)
    return all(abs(one - other) <= rounding for one, other in zip(found, wanted, strict=True))


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Types and contents of the boxes, one behind the other, as far as they are whole (ISO/IEC 14496-12, section 4.2)."""
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        header = 16 if size == 1 else 8
        if size < 2:  # it is behind the type, or reaches to the end
            size = int.from_bytes(data[at + 8 : at + 16], "big") if size else len(data) - at
        if size < header or at + size > len(data):
            return
        yield kind, data[at + header : at + size]
        at += size


def _numbers(associations: bytes, item: int) -> list[int]:
    """Those of an item's properties, counted from 1, in a box ipma (ISO/IEC 23008-12, section 9.3)."""
    head, index, mask = ">IB" if associations[0] else ">HB", "B", 0x7F
    if associations[3] & 1:
        index, mask = "H", 0x7FFF
    (count,) = struct.unpack_from(">I", associations, 4)
    at = 8
    for _ in range(count):
        number, many = struct.unpack_from(head, associations, at)
        at += struct.calcsize(head)
        form = f">{many}{index}"
        if number == item:
            return [one & mask for one in struct.unpack_from(form, associations, at)]
        at += struct.calcsize(form)
    return []
