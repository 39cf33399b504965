"""What all tests share: the reference material, where there is any."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference material that only the developers have."""
    if not SHARED.is_dir():
        pytest.skip("needs the developers' reference material, ../shared")
    return SHARED


# Without a GPU Triton's kernels are interpreted, all of them or none: it looks when it is first imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# No test may fail for being slow: the machine may be busy.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
