"""Archives of small pictures, with every kind of bad file among them, and what a job has made of one."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

Run = Callable[..., dict[str, Any]]


def picture(seed: int, size: tuple[int, int] = (12, 9), mode: str = "RGB") -> Image.Image:
    bands = len(mode) if mode in ("RGB", "RGBA") else 1
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], bands), np.uint8)
    return Image.fromarray(values[..., 0] if bands == 1 else values, mode)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    data = io.BytesIO()
    image.save(data, kind)
    return data.getvalue()


def write_archive(folder: Path, num: int = 20) -> dict[str, bytes]:
    """Pictures in folders, and every kind of bad file; what lies under each key."""
    files = {f"{i % 3}/picture {i}.png": encoded(picture(i, (8 + i % 4, 6))) for i in range(num)}
    files |= {
        "a.jpg": encoded(picture(100), "JPEG"),
        "a.png": encoded(picture(101)),
        "copy.png": files["0/picture 0.png"],
        "grau.png": encoded(picture(102, mode="L")),
        "ünï'%20\"x.png": encoded(picture(103, mode="RGBA")),
        "empty.png": b"",
        "cut.png": encoded(picture(104, (64, 64)))[:200],
        "notes.txt": b"not a picture",
        "film.mp4": b"not a picture either",
    }
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return files


def rows(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / "_index.parquet").to_pylist()


def tree(folder: Path) -> dict[str, str]:
    """The digest of every result; not of what only the run needs."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "_swinir" not in path.parts and path.name != "_report.json"
    }
