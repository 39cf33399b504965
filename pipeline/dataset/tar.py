"""Where the pictures lie in a tar file, so that each can be read by itself."""

from __future__ import annotations

import tarfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import BinaryIO

from pipeline.dataset.listing import is_hidden, readable
from pipeline.dataset.reading import opened

PICTURE_ENDINGS = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".gif", ".avif", ".heic",
    ".heif", ".jp2", ".j2k", ".jxl", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico", ".psd", ".exr", ".hdr", ".dds", ".pcx",
})  # fmt: skip
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\0", b"MM\0*", b"BM")
_MAGIC_BYTES = 16


@dataclass(frozen=True, slots=True)
class Member:
    name: str
    offset: int
    size_bytes: int


@dataclass(slots=True)
class Members:
    """The pictures of one tar, sorted by name; how many others it has, by ending; and what is wrong with it, or ""."""

    pictures: list[Member] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    damage: str = ""


def list_members(url: str) -> Members:
    """Read the headers of a tar. It must not be compressed as a whole.

    A member is a picture by its ending or, where that is unknown, its first bytes. Of members with one name the last counts,
    as in unpacking. Raises as ``reading.opened`` where nothing can be read; damage after the first header is only told.
    """
    found = Members()
    pictures: dict[str, Member] = {}
    with opened(url) as file, tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
        try:
            while (info := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # it would keep them all
                _add(info, file, pictures, found.ignored)
            # tarfile takes a header that it cannot read for the end.
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                found.damage = f"no end mark at byte {tar.offset}"
        except tarfile.TarError as error:
            found.damage = f"{error} at byte {tar.offset}"
    found.pictures = sorted(pictures.values(), key=lambda member: member.name)
    return found


def _add(info: tarfile.TarInfo, file: BinaryIO, pictures: dict[str, Member], ignored: Counter[str]) -> None:
    if info.isdir():
        return
    name = _key(info.name)
    if info.islnk():
        target = pictures.get(_key(info.linkname))
        picture = target and Member(name, target.offset, target.size_bytes)
    else:
        # A sparse file's bytes do not lie together.
        is_picture = info.isreg() and not info.issparse() and _is_picture(info, name, file)
        picture = Member(name, info.offset_data, info.size) if is_picture else None
    if picture is None or not name or any(map(is_hidden, name.split("/"))):
        ignored[PurePosixPath(name).suffix] += 1
        return
    if name in pictures:
        ignored["replaced"] += 1
    pictures[name] = picture


def _key(name: str) -> str:
    """A member's name as the end of a key: without ``./`` and ``//``, which name the same place."""
    return "/".join(part for part in readable(name).split("/") if part not in ("", "."))


def _is_picture(info: tarfile.TarInfo, name: str, file: BinaryIO) -> bool:
    ending = PurePosixPath(name).suffix.lower()
    if ending in PICTURE_ENDINGS:
        return True
    file.seek(info.offset_data)
    start = file.read(min(_MAGIC_BYTES, info.size))
    return start.startswith(_MAGIC) or (start[:4], start[8:12]) == (b"RIFF", b"WEBP") or start[4:12] == b"ftypavif"
