"""The test sets that the field measures with, found in the layouts that people keep them in, as pairs of images."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, MediaError

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"}

# Other names that people give them; upper and lower case are one.
ALIASES = {"BSD100": ("B100", "BSDS100"), "Kodak24": ("Kodak",)}
# What the paper measures each task on.
USUAL = {
    "sr": ("Set5", "Set14", "BSD100", "Urban100", "Manga109"),
    "grey noise": ("Set12", "BSD68", "Urban100"),
    "colour noise": ("CBSD68", "Kodak24", "McMaster", "Urban100"),
    "grey jpeg": ("classic5", "LIVE1"),
    "colour jpeg": ("LIVE1",),
}
ORIGINALS = ("HR", "original", "original_png", "GTmod12", "HR_mod{scale}", "GTmod{scale}", "GT")
REDUCED = ("LR_bicubic/X{scale}", "LRbicx{scale}", "LR/X{scale}")


class Pair(NamedTuple):
    """A large image and its small one; ``small`` is None where that is to be made."""

    small: Path | None
    large: Path


class Dataset(NamedTuple):
    name: str
    pairs: list[Pair]


def find_dataset(name: str, root: Path | None, scale: int) -> Dataset:
    """The data set that a folder holds, or that is called ``name`` under ``root``. ConfigError where there is none.

    ``scale`` chooses among folders of originals, and of small images: without one (1) those are not looked for.
    """
    folder = folder_of(name, root)
    if folder is None:
        where = f"there is none under {root}" if root else "name a folder, or say by --datasets where data sets lie"
        raise ConfigError(f"{name} is not a folder and no data set that can be found; {where}")
    originals = [folder / layout.format(scale=scale) for layout in ORIGINALS]
    large = next((path for path in originals if path.is_dir() and images_in(path)), folder)
    if not images_in(large):
        raise ConfigError(f"{folder} holds no images, and no folder {', '.join(path.name for path in originals)} does")
    title = title_of(folder)
    small = next((path for path in (folder / layout.format(scale=scale) for layout in REDUCED) if path.is_dir()), None)
    if scale > 1 and small is not None:
        return Dataset(title, [Pair(*pair) for pair in pair_images(small, large)])
    return Dataset(title, [Pair(None, path) for path in images_in(large)])


def usual_datasets(task: str, root: Path, scale: int) -> list[Dataset]:
    """Those that the paper measures ``task``, a key of ``USUAL``, on and that lie under ``root``. ConfigError for none."""
    if not root.is_dir():
        raise ConfigError(f"{root} is not a folder; --datasets names the one that holds Set5 and the like")
    found = [find_dataset(name, root, scale) for name in USUAL[task] if folder_of(name, root)]
    if not found:
        raise ConfigError(f"{root} holds none of {', '.join(USUAL[task])}; name the folders of images to measure on")
    return found


def folder_of(name: str, root: Path | None) -> Path | None:
    """The folder ``name``, or the one under ``root`` of that name or one of its other names."""
    if root is not None and root.is_dir():
        known = {alias.lower() for names in same_names() if name.lower() in names for alias in names} | {name.lower()}
        found = sorted(path for path in root.iterdir() if path.is_dir() and path.name.lower() in known)
        if found:
            return found[0]
    return Path(name) if Path(name).is_dir() else None


def title_of(folder: Path) -> str:
    """What a folder is called in tables: the usual name of the data set, else its own."""
    folder = folder.resolve()
    usual = {name.lower(): name for names in USUAL.values() for name in names}
    usual |= {alias.lower(): name for name, aliases in ALIASES.items() for alias in aliases}
    part_of_set = any(re.fullmatch(layout.format(scale=r"\d"), folder.name) for layout in ORIGINALS)
    name = folder.parent.name if part_of_set else folder.name
    return usual.get(name.lower(), name)


def same_names() -> list[set[str]]:
    return [{name.lower(), *(alias.lower() for alias in aliases)} for name, aliases in ALIASES.items()]


def pair_images(lr: Path, hr: Path) -> list[tuple[Path, Path]]:
    """Each small image with the large one of its stem, in order; ConfigError where one of either has no counterpart, or two."""
    for folder in (lr, hr):
        if not folder.is_dir():
            raise ConfigError(f"{folder} is not a folder; give folders of images to --lr and --hr")
    large = one_of_each((path.stem, path) for path in images_in(hr))
    small = one_of_each((path.stem if path.stem in large else without_scale(path.stem), path) for path in images_in(lr))
    if not small:
        raise ConfigError(f"{lr} holds no images; {', '.join(sorted(SUFFIXES))} are read")
    for stem, path in small.items():
        if stem not in large:
            raise ConfigError(f"{path} has no counterpart in {hr}: an image called {stem} is wanted there")
    if unused := [path.name for stem, path in large.items() if stem not in small]:
        names = ", ".join(unused[:5]) + f" and {len(unused) - 5} more" * (len(unused) > 5)
        raise ConfigError(f"{hr} holds images without a small one in {lr}: {names}; put those there, or take these out")
    return [(path, large[stem]) for stem, path in small.items()]


def without_scale(stem: str) -> str:
    """``baby`` of ``babyx2``."""
    return re.sub(r"[-_]?x[2348]$", "", stem, flags=re.IGNORECASE)


def one_of_each(named: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """By name. Raises ConfigError where two are of one."""
    found: dict[str, Path] = {}
    for name, path in named:
        if name in found:
            raise ConfigError(f"{found[name]} and {path.name} are both images of {name}; take one of them out")
        found[name] = path
    return found


def images_in(folder: Path) -> list[Path]:
    """Those that `swinir images` would take: names with a leading dot, as macOS writes beside a file, are none."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) RGB uint8. Raises MediaError where it is no image."""
    return read_image(path, keep_grey=False)


def read_image(path: Path, keep_grey: bool) -> NDArray[np.uint8]:
    """(H, W, 3) RGB uint8, or (H, W) for a grey image with ``keep_grey``, as training reads it. MediaError where it is none."""
    from pipeline.dataset.images import read_picture
    from pipeline.dataset.picture import PictureError
    from pipeline.dataset.pixels import LIMITS, as_rgb

    try:
        pixels = read_picture(path.read_bytes(), LIMITS).pixels
    except (PictureError, OSError) as error:
        raise MediaError(f"{path} cannot be read as an image ({error})") from error
    rgb = as_rgb(pixels)
    return rgb[..., 0] if keep_grey and pixels.shape[-1] == 1 else rgb
