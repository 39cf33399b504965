"""Shards are cut by what the keys are, so that a second run finds most of them unchanged; lists carry them as they are."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.dataset.shards import cut_shards, read_list, write_list
from pipeline.dataset.sources import Item
from pipeline.storage import Store

ODD_ITEM = Item("a/new\nline 東京 \ufffde9 'q\".png", "s3://b/a%20#?.tar", "!what's wrong", 2**40, "")


def plain(key: str) -> Item:
    return Item(key, f"/photos/{key}", "", 1, "v")


key_sets = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), unique=True, max_size=300).map(sorted)


@settings(deadline=None, max_examples=40)
@given(key_sets, st.integers(1, 40))
def test_every_item_is_in_one_shard_in_order_and_no_shard_is_too_large(keys: list[str], rows: int) -> None:
    shards = list(cut_shards(map(plain, keys), rows))
    assert [item.key for shard in shards for item in shard] == keys
    assert all(len(shard) <= 4 * rows for shard in shards)
    assert all(len(shard) >= max(1, rows // 4) for shard in shards[:-1])


@settings(deadline=None, max_examples=40)
@given(key_sets, st.integers(1, 40), st.data())
def test_a_cut_depends_on_nothing_before_its_shard(keys: list[str], rows: int, data: st.DataObject) -> None:
    shards = list(cut_shards(map(plain, keys), rows))
    first = data.draw(st.integers(0, len(shards)))
    rest = [item for shard in shards[first:] for item in shard]
    assert list(cut_shards(rest, rows)) == shards[first:]


@pytest.mark.parametrize("rows", [8, 64])
@pytest.mark.parametrize("change", ["insert", "remove"])
def test_f3_one_key_more_or_less_changes_only_the_shards_around_it(rows: int, change: str) -> None:
    keys = sorted(f"2019/{number * 7:06d}.jpg" for number in range(40 * rows))
    before = list(cut_shards(map(plain, keys), rows))
    changed = []
    for seed in range(40):
        key = random.Random(seed).choice(keys)
        others = [other for other in keys if other != key] if change == "remove" else sorted([*keys, f"{key}-2.jpg"])
        new = [shard for shard in cut_shards(map(plain, others), rows) if shard not in before]
        changed.append(len(new))
    assert sum(changed) <= 2 * len(changed)
    assert max(changed) <= 6


def test_a_tar_is_a_shard_and_a_very_large_one_is_several() -> None:
    def tar(name: str, num_items: int) -> list[Item]:
        return [Item(f"{name}/{n:05d}.jpg", f"s3://b/{name}", str(n * 512), 1, "v") for n in range(num_items)]

    items = [*map(plain, ["a", "b"]), *tar("c.tar", 3), *tar("d.tar", 75), *tar("e.tar", 100), plain("f")]
    assert [len(shard) for shard in cut_shards(items, 20)] == [2, 3, 75, 80, 20, 1]


def test_rows_of_parquet_are_cut_like_files() -> None:
    rows = [Item(f"a.parquet/{row:09d}", "/a.parquet", str(row), 1, "v") for row in range(1000)]
    assert 5 < len(list(cut_shards(rows, 50))) < 40


@settings(deadline=None, max_examples=40)
@given(st.lists(st.builds(Item, st.text(), st.text(), st.text(), st.integers(0, 2**62), st.text()), max_size=5))
def test_a_list_comes_back_as_it_was(items: list[Item]) -> None:
    store = Store("memory://lists of any items")
    assert read_list(store, write_list(store, items)) == items


def test_a_list_is_named_by_its_content_and_has_the_same_bytes_each_time(store_url: str) -> None:
    store = Store(store_url)
    items = [ODD_ITEM, *(plain(f"{number:04d}.png") for number in range(2000))]
    key = write_list(store, items)
    data = store.read(key)
    assert (write_list(store, items), store.read(key), list(store.list())) == (key, data, [key])
    assert len(data) < 60 * len(items)
    assert read_list(store, key) == items
    for change in ({"version": "w"}, {"size_bytes": 2}, {"url": "/elsewhere"}):
        assert write_list(store, [*items[:-1], replace(items[-1], **change)]) != key
