"""What all tests share: the reference material, where there is any."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference material that only the developers have."""
    if not SHARED.is_dir():
        pytest.skip("needs the developers' reference material, ../shared")
    return SHARED
