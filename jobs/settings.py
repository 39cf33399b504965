"""YAML files of settings for the commands whose settings are plain values."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.config import read_yaml
from pipeline.errors import ConfigError


def read_settings(path: Path | None, known: set[str]) -> dict[str, Any]:
    """The settings of a YAML file, none without a file. Raises ConfigError for a key that is not ``known``."""
    content = read_yaml(path) if path else {}
    refuse_unknown(content, known, str(path))
    return content


def refuse_unknown(settings: Iterable[Any], known: set[str], where: str) -> None:
    """Raise ConfigError for the first key that is not ``known``."""
    for key in settings:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(sorted(known))}"
            raise ConfigError(f"unknown key {key!r} in {where}; {hint}")
