"""Builds ``blocks.cpp`` for the processor at hand with the compiler that is there, once, into the user's cache folder."""

from __future__ import annotations

import ctypes
import hashlib
import json
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from swinir.weights import default_cache

SOURCE = Path(__file__).with_name("blocks.cpp")
HEADERS = tuple(Path(__file__).with_name(name) for name in ("vectors.h", "products.h", "window.h", "gradients.h"))
# Neither errno nor traps matter to arithmetic; what is not finite must stay so, hence no -ffast-math.
FLAGS = ("-std=c++20", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC", "-pthread")
COMPILERS = ("c++", "g++", "clang++")
TIMEOUT_S = 120


def capabilities() -> dict[str, Any]:
    """What the processor can do, by PyTorch's names; empty with a PyTorch that does not tell."""
    return dict(getattr(torch.cpu, "get_capabilities", dict)())


@lru_cache(maxsize=1)
def block_kernel() -> ctypes.CDLL | None:
    """The library with ``swinir_run_blocks``, or None where it cannot be had: the network then does without.

    The variable CXX names another compiler; empty, it means none.
    """
    named = os.environ.get("CXX")
    compiler = shutil.which(named) if named is not None else next(filter(None, map(shutil.which, COMPILERS)), None)
    if not compiler:
        logging.getLogger("swinir").info("no C++ compiler: SwinIR runs without its compiled blocks, some times slower")
        return None
    try:
        return ctypes.CDLL(str(build(compiler)))
    except (OSError, subprocess.SubprocessError) as error:
        logging.getLogger("swinir").info("SwinIR runs without its compiled blocks: %s", " ".join(str(error).split())[:300])
        return None


def build(compiler: str, flags: Sequence[str] = FLAGS) -> Path:
    """The library built by ``compiler``, from the cache if it is there; written beside and renamed.

    Raises OSError where the cache cannot be written, CalledProcessError or TimeoutExpired where the compiler fails.
    """
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True, timeout=TIMEOUT_S).stdout
    sources = [file.read_text() for file in (SOURCE, *HEADERS)]
    processor = json.dumps(capabilities(), sort_keys=True)  # a cache may be shared by machines
    key = hashlib.sha256("\0".join([*sources, *flags, version, processor]).encode()).hexdigest()[:16]
    folder = default_cache() / "kernels"
    library = folder / f"blocks-{key}.so"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            part = Path(scratch) / library.name
            subprocess.run([compiler, *flags, str(SOURCE), "-o", str(part)], capture_output=True, check=True, timeout=TIMEOUT_S)
            os.replace(part, library)
    return library
