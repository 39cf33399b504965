"""The bytes of pictures, read some way ahead of their use: as many at once as the memory set aside for them holds."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from pipeline.dataset.sources import Item, Source
from pipeline.errors import MediaError

_UNKNOWN_BYTES = 1 << 20  # of an item whose size is not known, before any has come
_WAITING_PER_THREAD = 16


def read_ahead(
    source: Source, items: Iterable[Item], threads: int, budget_bytes: int
) -> Generator[tuple[Item, bytes | MediaError], None, None]:
    """Each item with its bytes, or with why it cannot be had, in order; read by ``threads`` ahead of their use.

    What waits is at most ``budget_bytes`` by the items' sizes, or one item. Other errors than MediaError are raised at the
    place of their item. Closing stops after the reads under way.
    """

    def read(item: Item) -> bytes | MediaError:
        try:
            return source.read(item)
        except MediaError as error:
            return error

    waiting: deque[tuple[Item, int, Future[bytes | MediaError]]] = deque()
    reserved = largest = 0
    pool = ThreadPoolExecutor(threads)
    try:
        source_items = iter(items)
        following = next(source_items, None)
        while following or waiting:
            size = following.size_bytes or max(_UNKNOWN_BYTES, largest) if following else 0
            full = len(waiting) >= _WAITING_PER_THREAD * threads or reserved + size > budget_bytes
            if following and not (waiting and full):
                waiting.append((following, size, pool.submit(read, following)))
                reserved += size
                following = next(source_items, None)
                continue
            item, size, future = waiting.popleft()
            result = future.result()
            reserved -= size
            largest = max(largest, len(result) if isinstance(result, bytes) else 0)
            yield item, result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
