"""Which files a URL with ``*``, ``**``, ``?``, ``[...]``, ``{a,b}`` or ``{000..999}`` means; pure."""

from __future__ import annotations

import fnmatch
import functools
import os
import re
from collections.abc import Sequence
from itertools import product

from pipeline.errors import ConfigError

_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")
_MAGIC = re.compile(r"[*?\[]")
_MAX_EXPANSIONS = 1_000_000


def has_magic(text: str) -> bool:
    return _MAGIC.search(text) is not None


def has_braces(text: str) -> bool:
    return _BRACES.search(text) is not None


def expand_braces(text: str) -> list[str]:
    """``a{08..10}{x,y}`` is a08x, a08y, a09x ...; a number keeps the width of the first. Without braces: the text itself.

    Raises ConfigError where that is more than a million names.
    """
    pieces: list[Sequence[str]] = []
    position, total = 0, 1
    for match in _BRACES.finditer(text):
        first, last, choices = match.groups()
        if choices is None:
            low, high = sorted((int(first), int(last)))
            total *= high - low + 1
        else:
            total *= choices.count(",") + 1
        if total > _MAX_EXPANSIONS:
            raise ConfigError(f"{text} names more than {_MAX_EXPANSIONS} files; use a glob, or a text file of URLs")
        options = choices.split(",") if choices is not None else [f"{n:0{len(first)}}" for n in range(low, high + 1)]
        pieces += [[text[position : match.start()]], options]
        position = match.end()
    return ["".join(parts) for parts in product(*pieces, [text[position:]])]


class Patterns:
    """Globs over keys, matched part by part: ``**`` is any number of folders, the rest stays within one name."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = [pattern.split("/") for pattern in patterns]
        starts = [_MAGIC.split(pattern)[0] for pattern in patterns]
        self.literal_start = os.path.commonprefix(starts)  # noqa: RUF071 - by characters; of all keys that match
        self.only_names = all(len(parts) == 1 and parts != ["**"] for parts in self._patterns)  # no key with a / matches

    def match(self, key: str) -> bool:
        """Whether a file of that key is meant."""
        return any(_matches(key.split("/"), pattern) for pattern in self._patterns)

    def may_hold(self, folder: str) -> bool:
        """Whether any key in the folder of that key could match."""
        return any(_may_hold(folder.split("/"), pattern) for pattern in self._patterns)


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    return bool(parts) and _name_matches(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _may_hold(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern or pattern[0] == "**" or not parts:
        return bool(pattern)
    return _name_matches(parts[0], pattern[0]) and _may_hold(parts[1:], pattern[1:])


def _name_matches(name: str, pattern: str) -> bool:
    return _compiled(pattern).match(name) is not None


@functools.lru_cache(4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(pattern))
