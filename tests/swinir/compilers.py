"""What the compiled blocks are built with and for, and the tests that they are needed by."""

from __future__ import annotations

import os
import platform
import shutil

import pytest

from swinir.cpu.blocks import multiplies_bfloat16
from swinir.cpu.compiled import COMPILERS, block_kernel

needs_kernel = pytest.mark.skipif(block_kernel() is None, reason="the compiled blocks cannot be had here")
needs_bfloat16 = pytest.mark.skipif(not multiplies_bfloat16(), reason="the processor or the compiler multiplies no bfloat16")


def compiler() -> str | None:
    named = os.environ.get("CXX")
    return shutil.which(named) if named is not None else next(filter(None, map(shutil.which, COMPILERS)), None)


needs_compiler = pytest.mark.skipif(not compiler(), reason="there is no C++ compiler")


def lesser() -> list[list[str]]:
    """Flags for processors that can do less than this one, where that is an x86; others have one way.

    Without AVX-512 there is no bfloat16; without AMX it takes AVX-512 BF16.
    """
    x86 = [["-mno-amx-bf16", "-mno-amx-tile"], ["-mno-avx512f"], ["-mno-avx"]]
    return x86 if platform.machine() == "x86_64" else []
