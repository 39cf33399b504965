"""Media, storage and the distributed run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api import upscale_images, upscale_video

__all__ = ["__version__", "upscale_images", "upscale_video"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    # Ray, torch and FFmpeg load with the first use, not with the import.
    if name in ("upscale_images", "upscale_video"):
        from pipeline import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
