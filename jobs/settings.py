"""YAML files of settings for the commands whose settings are plain values."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import ConfigError


def read_settings(path: Path | None, known: set[str]) -> dict[str, Any]:
    """The settings of a YAML file, none without a file. Raises ConfigError for a key that is not ``known``."""
    if path is None:
        return {}
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold settings, one 'name: value' a line")
    for key in content:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(sorted(known))}"
            raise ConfigError(f"unknown key {key!r} in {path}; {hint}")
    return content
