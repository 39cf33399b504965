"""What the compiled blocks are built with, and built for."""

from __future__ import annotations

import os
import platform
import shutil

from swinir.compiled import COMPILERS


def compiler() -> str:
    return os.environ.get("CXX") or next(name for name in COMPILERS if shutil.which(name))


def lesser() -> list[list[str]]:
    """Flags for processors that can do less than this one, where that is an x86; others have one way.

    Without AVX-512 there is no bfloat16; without AMX it takes AVX-512 BF16.
    """
    x86 = [["-mno-amx-bf16", "-mno-amx-tile"], ["-mno-avx512f"], ["-mno-avx"]]
    return x86 if platform.machine() == "x86_64" else []
