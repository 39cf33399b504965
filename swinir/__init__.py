"""Super-resolution with SwinIR: the network, its weights, tiles and image maths; knows torch and nothing of media."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swinir.model import SwinIR, SwinIRConfig
    from swinir.upscaler import Upscaler
    from swinir.weights import load_model

__all__ = ["SwinIR", "SwinIRConfig", "Upscaler", "load_model"]

# Looked up on first use: importing torch takes seconds, and `swinir --help` needs none of it.
_HOMES = {
    "SwinIR": "swinir.model",
    "SwinIRConfig": "swinir.model",
    "Upscaler": "swinir.upscaler",
    "load_model": "swinir.weights",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'swinir' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
