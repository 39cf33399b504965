"""What a JPEG file holds in application segments besides EXIF, XMP and profile, without Photoshop's thumbnails.

Photoshop's resources (Adobe Photoshop File Formats Specification, "Image Resource Blocks") may go on from one APP13 segment to
the next. What does not follow the specification is kept as it is.
"""

from __future__ import annotations

from collections.abc import Iterable

PHOTOSHOP = b"Photoshop 3.0\0"
XMP_EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
_RESOURCE = b"8BIM"
_THUMBNAILS = (0x0409, 0x040C)
_MOST_BYTES = 65533


def kept_segments(segments: Iterable[tuple[str, bytes]]) -> bytes:
    """Of named segments ("APP13") those that are kept, as they stand in a file."""
    kept: list[tuple[str, bytes]] = []
    resources = b""
    for name, content in segments:
        if name == "APP13" and content.startswith(PHOTOSHOP):
            resources += content.removeprefix(PHOTOSHOP)
        elif name == "APP13" or (name == "APP1" and content.startswith(XMP_EXTENSION)):
            kept.append((name, content))
    resources = without_thumbnails(resources)
    step = _MOST_BYTES - len(PHOTOSHOP)
    kept += [("APP13", PHOTOSHOP + resources[at : at + step]) for at in range(0, len(resources), step)]
    return b"".join(_marker(name) + (len(content) + 2).to_bytes(2, "big") + content for name, content in kept)


def _marker(name: str) -> bytes:
    return bytes([0xFF, 0xE0 + int(name.removeprefix("APP"))])


def without_thumbnails(resources: bytes) -> bytes:
    """Photoshop's resources, each with its padding, but for thumbnails."""
    kept, at = b"", 0
    while resources[at : at + 4] == _RESOURCE and at + 12 <= len(resources):
        name_bytes = 1 + resources[at + 6]
        data = at + 6 + name_bytes + name_bytes % 2 + 4
        size = int.from_bytes(resources[data - 4 : data], "big")
        end = data + size + size % 2
        if int.from_bytes(resources[at + 4 : at + 6], "big") not in _THUMBNAILS:
            kept += resources[at:end]
        at = end
    return kept + resources[at:]
