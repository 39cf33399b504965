"""A picture whose result is too large to wait for others: from its file to its file, in bands where the format allows it."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from pipeline.config import ImagesConfig
from pipeline.dataset.encoding import ENDINGS, PILLOW_BYTES, format_for, open_png, save
from pipeline.dataset.enlarge import Comparison, enlarge_in_bands, target_size
from pipeline.dataset.formats import READERS, format_of, our_limits
from pipeline.dataset.picture import Encoding, Picture, Pixels
from swinir.upscaler import Upscaler

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # by number of channels


def is_large(data: bytes, model_scale: int, config: ImagesConfig) -> bool:
    """Whether a result in RGB would have more than ``PILLOW_BYTES`` samples, as far as the file's header tells.

    Never of an animation, nor of what is damaged: reading it says what it is.
    """
    try:
        with our_limits(), READERS[format_of(data)](io.BytesIO(data)) as image:
            width, height = target_size(*image.size, model_scale, config)
            return not getattr(image, "is_animated", False) and 3 * width * height > PILLOW_BYTES
    except Exception:  # noqa: BLE001  (damaged files make Pillow raise nearly everything that Python has)
        return False


def enlarge_to_file(
    upscaler: Upscaler, picture: Picture, size: tuple[int, int], encoding: Encoding, path: Path, on_band: Callable[[], None]
) -> tuple[str, float, float]:
    """Store the result of ``size`` (width, height) at ``path``; its ending (".png") and the two figures of ``Comparison``.

    PNG is written while the model works; of JPEG and WebP the result is whole in memory. Raises as ``Upscaler.stream`` does.
    """
    pixels = picture.pixels
    shape = (size[1], size[0], pixels.shape[2])
    kind = format_for(picture, shape, pixels.dtype, encoding)
    comparison = Comparison(pixels, size)
    with path.open("wb") as file, _Behind() as behind:
        if kind == "PNG":
            writer = open_png(file, picture, shape, encoding)

            def take(top: int, codes: Pixels) -> None:
                nonlocal writer
                if top == 0:  # for the first time, or once more
                    file.seek(0)
                    file.truncate()
                    writer = open_png(file, picture, shape, encoding)
                writer.write(codes)
                comparison.add(top, codes)

            enlarge_in_bands(upscaler, pixels, size, lambda *band: behind.do(lambda: take(*band)), on_band)
            behind.wait()
            writer.close()
        else:
            whole = Image.new(MODES[shape[2]], size)

            def keep(top: int, codes: Pixels) -> None:
                whole.paste(Image.fromarray(codes[..., 0] if shape[2] == 1 else codes), (0, top))
                comparison.add(top, codes)

            enlarge_in_bands(upscaler, pixels, size, lambda *band: behind.do(lambda: keep(*band)), on_band)
            behind.wait()
            file.write(save(whole, kind, picture, encoding))
    return (ENDINGS[kind], *comparison.result())


class _Behind:
    """Does one thing at a time in a thread, while the next is being made."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._running: Future[None] | None = None

    def __enter__(self) -> _Behind:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown()

    def do(self, work: Callable[[], None]) -> None:
        self.wait()
        self._running = self._pool.submit(work)

    def wait(self) -> None:
        if self._running:
            self._running.result()
