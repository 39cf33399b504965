"""What a picture is called where it is stored: names that mirror the source, never meet, and fit every store."""

from __future__ import annotations

import hashlib
import re

DATA = "data"  # the folder of Parquet files and tars
INDEX = "_index.parquet"
REPORT = "_report.json"
CARD = "README.md"
SHEET = "__card__/pairs.png"  # what `datasets` looks for pictures in skips folders that begin with two underscores
WORK = "_swinir"

NAME_BYTES = 255  # of one name on every common file system
PATH_BYTES = 900  # S3 takes 1024 for the whole key, of which the destination has a part

_LONG = "_long"
_RESERVED = {INDEX, REPORT, CARD, WORK, _LONG, SHEET.partition("/")[0]}
_KINDS = (("jpg", "jpeg", "jpe", "jfif"), ("png", "apng"), ("webp",), ("tif", "tiff"), ("bmp", "dib"), ("gif",), ("avif",))
_ANY_ENDING = rf"\.({'|'.join(ending for kind in _KINDS for ending in kind)})"
_ENDING = re.compile(rf"{_ANY_ENDING}$", re.IGNORECASE)
_LIKE_A_RESULT = re.compile(rf"{_ANY_ENDING}~*$", re.IGNORECASE)
_NUMBERED = re.compile(r"\.(parquet|txt)/\d{9}$", re.IGNORECASE)  # a row of a table, a line of a list
_OWN_CODE = re.compile(r"%(?=00|25|2E|2F|52|5F)|\0")


def file_path(key: str, ending: str) -> str:
    """Where the result of ``key`` lies in a tree of files; ``ending`` (".png") is that of the format it is written in.

    ``a.jpg`` stays ``a.jpg`` as a JPEG and is ``a.jpg.png`` as a PNG, ``scan`` is ``scan.image.png``. Different keys have
    different paths, and none lies below another. No path leaves the folder, or is one that this program writes there itself.
    """
    *folders, name = _with_ending(key, ending).split("/")
    # A folder may be called as a result is: beside a.jpg, another picture is in a.jpg/.
    parts = [f"{folder}~" if _LIKE_A_RESULT.search(folder) else folder for folder in folders] + [name]
    path = "/".join(_shortened(_safe(part, first=not i)) for i, part in enumerate(parts))
    if len(_utf8(path)) <= PATH_BYTES:
        return path
    return f"{_LONG}/{hashlib.sha256(_utf8(key)).hexdigest()}{ending}"


def sample_name(key: str) -> str:
    """The name of a WebDataset sample, in which a dot would begin the ending; ``urllib.parse.unquote`` gives the key back."""
    name = key.replace("%", "%25").replace(".", "%2E").replace("\0", "%00")
    if name.startswith("__"):  # the reader of webdataset takes a folder __like_this__ for something else, and passes over it
        name = f"%5F{name[1:]}"
    return re.sub(r"(?<![^/])/|/$", "%2F", name)  # tar readers drop a leading slash, and take two for one


def _with_ending(key: str, ending: str) -> str:
    """Three cases, told apart by what stands before the last ending, so that no two keys meet."""
    found = _ENDING.search(key)
    if found:
        before = key[: found.start()]
        taken = _ENDING.search(before) or _NUMBERED.search(before) or before.endswith(".image")
        return key if _kind(found[1]) == _kind(ending[1:]) and not taken else key + ending
    return key + ending if _NUMBERED.search(key) else f"{key}.image{ending}"


def _kind(ending: str) -> int:
    return next((i for i, kind in enumerate(_KINDS) if ending.lower() in kind), -1)


def _safe(part: str, first: bool) -> str:
    """One name that no file system takes for something else; what is replaced becomes %XX, and such codes %25XX."""
    part = _OWN_CODE.sub(lambda found: f"%{ord(found[0]):02X}", part)
    if part in (".", ".."):
        return part.replace(".", "%2E")
    if first and part in _RESERVED:
        return f"%{ord(part[0]):02X}{part[1:]}"
    return part or "%2F"


def _shortened(name: str) -> str:
    if len(_utf8(name)) <= NAME_BYTES:
        return name
    found = _ENDING.search(name)
    tail = f"~{hashlib.sha256(_utf8(name)).hexdigest()[:32]}{found[0] if found else ''}"
    return _utf8(name)[: NAME_BYTES - len(tail)].decode("utf-8", "ignore") + tail


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
