"""Where the data that is not part of the repository lies, and networks small enough to test with."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from swinir.model import SwinIR
from swinir.train.pairs import reduced_pair
from swinir.train.patches import Patches

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


@pytest.fixture(scope="session")
def patches() -> Patches:
    """Of three pictures, as SHORT_RUN takes them."""
    from tiny import SHORT_RUN, picture

    return Patches([reduced_pair(picture(96, 120, seed), 2) for seed in range(3)], 2, SHORT_RUN.patch)


@pytest.fixture
def bfloat16_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's interpreter (3.7 to 3.9) holds bfloat16 as uint16, and multiplies it as such."""
    interpreter = pytest.importorskip("triton.runtime.interpreter")
    dot = interpreter.InterpreterBuilder.create_dot

    def create_dot(self, a, b, *rest):  # type: ignore[no-untyped-def]
        wide = [
            interpreter.TensorHandle((x.data.astype(np.uint32) << 16).view(np.float32), interpreter.tl.float32)
            if x.dtype == interpreter.tl.bfloat16
            else x
            for x in (a, b)
        ]
        return dot(self, *wide, *rest)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", create_dot)


@pytest.fixture(autouse=True)
def drawn_alike() -> None:
    """What tests draw does not depend on those before them."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small gain nothing from more, and on a busy machine waiting for one another costs most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
