"""The README's tree is the tree, and its commands have the options it names."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from typer.main import get_command

from jobs.cli import app

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def tree() -> dict[str, str]:
    """The files that the README's tree names, with what it says of them."""
    block = README.partition("## The tree\n\n```\n")[2].partition("```")[0]
    found, folders = {}, []
    for line in block.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name, _, text = line.strip().partition(" ")
        folders[depth:] = [name]
        if name.endswith(".py"):
            found["".join(folders)] = text.strip()
    return found


def first_sentences() -> dict[str, str]:
    """Every module of the packages, with the first line of its docstring."""
    paths = [path for package in ("swinir", "pipeline", "jobs") for path in (ROOT / package).rglob("*.py")]
    docs = {path.relative_to(ROOT).as_posix(): ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) for path in paths}
    return {path: (text or "").partition("\n")[0] for path, text in docs.items()}


def test_the_tree_names_every_file_with_its_first_sentence():
    assert tree() == first_sentences()


@pytest.mark.parametrize(
    "line", sorted(set(re.findall(r"^ *(swinir (?:video|images|inspect|compare|eval|train|models|demo)\b.*)$", README, re.M)))
)
def test_its_commands_parse(line):
    words = line.partition("  #")[0].split()
    command = get_command(app).commands[words[1]]
    command.make_context("swinir", words[2:])


def test_files_it_points_to_are_there():
    for target in re.findall(r"\]\((?!https?:|docs/|#)([^)]+)\)", README):
        assert (ROOT / target).exists(), target
    for target in re.findall(r"configs/[\w/.-]+\.yaml", README):
        assert (ROOT / target).exists(), target
