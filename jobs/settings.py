"""YAML files of settings for the commands whose settings are plain values."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from pipeline.config import read_yaml
from pipeline.errors import ConfigError


def read_settings(path: Path | None, known: set[str]) -> dict[str, Any]:
    """The settings of a YAML file, none without a file. Raises ConfigError for a key that is not ``known``."""
    content = read_yaml(path) if path else {}
    for key in content:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(sorted(known))}"
            raise ConfigError(f"unknown key {key!r} in {path}; {hint}")
    return content
