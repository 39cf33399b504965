"""F1: names that mirror the source, and never meet, whatever the keys are."""

from __future__ import annotations

import itertools
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.dataset.names import CARD, INDEX, REPORT, SHEET, WORK, file_path, sample_name

PIECES = ["a", ".", "/", ".jpg", ".png", ".PNG", ".parquet/", "000000001", ".image", "%2E", "%", INDEX, "ü", "\0", "x" * 200]
keys = st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join)


@pytest.mark.parametrize(
    ("key", "ending", "path"),
    [
        ("a.jpg", ".jpg", "a.jpg"),
        ("a.JPEG", ".jpg", "a.JPEG"),
        ("a.jpg", ".png", "a.jpg.png"),
        ("a.png", ".png", "a.png"),
        ("a.jpg.png", ".png", "a.jpg.png.png"),
        ("2019/Ein Tag, 100% \"grün\" & 'so'.png", ".png", "2019/Ein Tag, 100% \"grün\" & 'so'.png"),
        ("a%20b.png", ".png", "a%20b.png"),
        ("scan", ".png", "scan.image.png"),
        ("train.parquet/000000007", ".png", "train.parquet/000000007.png"),
        ("shard.tar/000000007.jpg", ".jpg", "shard.tar/000000007.jpg"),
        ("../../etc/x.png", ".png", "%2E%2E/%2E%2E/etc/x.png"),
        ("/etc/x.png", ".png", "%2F/etc/x.png"),
    ],
)
def test_f1_a_tree_of_files_mirrors_its_source(key, ending, path):
    assert file_path(key, ending) == path


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.sets(keys, min_size=2, max_size=6), st.lists(st.sampled_from([".png", ".jpg"]), min_size=6, max_size=6))
def test_f1_different_keys_have_different_paths_that_every_store_takes(some, endings):
    paths = [file_path(key, ending) for key, ending in zip(sorted(some), endings, strict=False)]
    assert len(set(paths)) == len(some)
    for path in paths:
        parts = path.split("/")
        assert not {"", ".", ".."} & set(parts)
        assert "\0" not in path
        assert len(path.encode()) <= 900
        assert all(len(part.encode()) <= 255 for part in parts)
        assert path not in (INDEX, REPORT, CARD, SHEET)
        assert parts[0] not in (INDEX, REPORT, CARD, WORK, "__card__")


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.sets(keys, min_size=2, max_size=6))
def test_f1_a_sample_name_gives_its_key_back_and_holds_no_dot(some):
    names = {key: sample_name(key) for key in some}
    assert [unquote(name) for name in names.values()] == list(names)
    for name in names.values():
        assert "." not in name
        assert "" not in name.split("/")
        assert not name.startswith("__"), "readers pass over those"


def test_f1_very_long_names_stay_apart_and_keep_their_ending():
    long = ["ü" * 140 + end for end in ("a.png", "b.png", "a.jpg")]
    deep = ["/".join(["d" * 200] * 5) + f"/{name}.png" for name in "ab"]
    paths = [file_path(key, ".png") for key in long + deep]
    assert len(set(paths)) == 5
    assert all(path.endswith(".png") for path in paths)
    assert all(path.startswith("ü" * 100) for path in paths[:3])


def test_f1_a_tree_made_of_a_tree_keeps_its_pictures_apart():
    """``a.jpg`` as PNG beside an ``a.jpg.png`` that was there; ``scan`` beside ``scan.png`` and ``scan.image.png``."""
    there = ["a.jpg", "a.png", "a.jpg.png", "a.jpg.png.png", "scan", "scan.png", "scan.image", "scan.image.png"]
    there += [f"t.parquet/000000001{ending}" for ending in ("", ".png", ".jpg")]
    for endings in itertools.product([".png", ".jpg"], repeat=3):
        paths = [file_path(key, endings[i % 3]) for i, key in enumerate(there)]
        assert len(set(paths)) == len(there)
