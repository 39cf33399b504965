"""Where the pictures lie in a tar file, so that each can be read by itself."""

from __future__ import annotations

import posixpath
import tarfile
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import BinaryIO

from pipeline.dataset.listing import is_side_file
from pipeline.dataset.reading import opened
from pipeline.dataset.walking import is_hidden, readable

PICTURE_ENDINGS = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".gif", ".avif", ".heic",
    ".heif", ".jp2", ".j2k", ".jxl", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico", ".psd", ".exr", ".hdr", ".dds", ".pcx",
})  # fmt: skip
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\0", b"MM\0*", b"BM")
_MAGIC_BYTES = 16
_MAX_LINKS = 40  # one after the other, as in Linux


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar: where its bytes lie, or, in ``problem`` or ``aside``, why they cannot be had or nobody wants them."""

    name: str
    offset: int = 0
    size_bytes: int = 0
    problem: str = ""
    aside: str = ""


@dataclass(slots=True)
class Members:
    """The files of one tar, sorted by name, and what is wrong with it, or ""."""

    files: list[Member] = field(default_factory=list)
    damage: str = ""


def list_members(url: str) -> Members:
    """Read the headers of a tar. It must not be compressed as a whole.

    A member is a picture by its ending or, where that is unknown, its first bytes; a link is the picture that it leads to. Of
    members with one name the last counts, as in unpacking. Hidden members and side files, the other fields of WebDataset's
    samples, are left out.
    Raises as ``reading.opened`` where nothing can be read; damage after the first header is only told.
    """
    found = Members()
    files: dict[str, Member] = {}
    links: dict[str, str] = {}
    with opened(url) as file, tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
        try:
            while (info := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # it would keep them all
                name = _key(info.name)
                if info.isdir() or not name or is_side_file(name):
                    continue
                links.pop(name, None)
                if info.issym() or info.islnk():
                    beside = name.rpartition("/")[0] if info.issym() and not info.linkname.startswith("/") else ""
                    links[name] = posixpath.normpath(posixpath.join(beside, _key(info.linkname)))
                files[name] = _member(info, name, file)
            # tarfile takes a header that it cannot read for the end.
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                found.damage = f"no end mark at byte {tar.offset}"
        except tarfile.TarError as error:
            found.damage = f"{error} at byte {tar.offset}"
    for name in links:
        if target := _target(name, files, links):
            files[name] = replace(target, name=name)
    # Only now: links that anybody wants may lead to hidden members.
    found.files = sorted((member for member in files.values() if not _is_hidden(member.name)), key=lambda member: member.name)
    return found


def _is_hidden(name: str) -> bool:
    """Whether nobody wants the member; what lies ``..`` above the folder to unpack in is wanted like any other."""
    return any(is_hidden(part) for part in name.split("/") if part != "..")


def _target(name: str, files: dict[str, Member], links: dict[str, str]) -> Member | None:
    """The file that a link leads to, over other links; None where there is none."""
    for _ in range(_MAX_LINKS):
        if name not in links:
            return files.get(name)
        name = links[name]
    return None


def _member(info: tarfile.TarInfo, name: str, file: BinaryIO) -> Member:
    if info.issym() or info.islnk():
        return Member(name, problem=f"a link to {readable(info.linkname)!r}, which is not in the tar")
    if not info.isreg():
        return Member(name, aside="a device or pipe, no file")
    if not _is_picture(info, name, file):
        return Member(name, aside="no picture, by its name and its first bytes")
    if info.issparse():  # its bytes do not lie together
        return Member(name, problem="a sparse file, which cannot be read by itself; pack the tar anew without --sparse")
    return Member(name, info.offset_data, info.size)


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
