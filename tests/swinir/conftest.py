"""Where the data that is not part of the repository lies, and networks small enough to test with."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from swinir.model import SwinIR

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data; skips where this checkout has none beside it."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the shared data at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def small_network() -> SwinIR:
    """Two groups of two blocks, x2, with the weights that the goldens use."""
    from tiny import network

    return network()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small gain nothing from more, and on a busy machine waiting for one another costs most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
