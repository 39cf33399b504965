"""An image sequence as a source: which files belong to it and when each is shown, as one video file made as it is read."""

from __future__ import annotations

import io
import struct
from bisect import bisect_right
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from itertools import accumulate
from typing import BinaryIO, cast

import av
import av.error
from PIL import Image

from pipeline import inputs
from pipeline.errors import MediaError
from pipeline.inputs import SourceIdentity
from pipeline.storage import Store, local_path, normal_url
from pipeline.units import digest
from pipeline.video.frames import rows, sample_bytes
from pipeline.video.info import VideoInfo
from pipeline.video.numbering import (
    TAGS,
    Sequence,
    file_name,
    find_sequence,
    is_sequence,
    ticks_of,
)
from pipeline.video.quicktime import SampleKind, header
from pipeline.video.tags import UNSPECIFIED

DEFAULT_RATE = 25
READ_AHEAD = 8  # images, from object stores

RAW_TAGS = {"bgr24": b"24BG", "rgba": b"RGBA", "gray": b"Y800", "yuv420p": b"I420"}

# Exif 2.32, tag 0x112: how to show the picture, as a, b, c and d of a display matrix.
ORIENTATION_TAG = 0x112
TURNS = {
    2: (-1, 0, 0, 1), 3: (-1, 0, 0, -1), 4: (1, 0, 0, -1),
    5: (0, 1, 1, 0), 6: (0, 1, -1, 0), 7: (0, -1, -1, 0), 8: (0, -1, 1, 0),
}  # fmt: skip
JPEG_SCAN, JPEG_END = b"\xff\xda", b"\xff\xd9"


def identify(url: str, rate: str | None) -> SourceIdentity:
    """As ``inputs.identify``; of a sequence, over the names, sizes and versions of all its files, and its rate."""
    if not is_sequence(url):
        return inputs.identify(url)
    found = find_sequence(url)
    entries = [*found.images, *([found.times] if found.times else [])]
    version = digest([[[file_name(entry.url), entry.size_bytes, entry.version] for entry in entries], rate])
    return SourceIdentity(normal_url(url), sum(image.size_bytes for image in found.images), version)


@contextmanager
def open_input(url: str, rate: str | None) -> Iterator[str | BinaryIO]:
    """As ``inputs.open_input``; a sequence is a video of ``rate`` frames a second, of its time table's times without one."""
    if not is_sequence(url):
        with inputs.open_input(url) as source:
            yield source
        return
    with SequenceFile(find_sequence(url), rate) as file:
        yield cast(BinaryIO, file)


class SequenceFile(io.RawIOBase):
    """All images behind one QuickTime header, as a file to read and to seek in; ``guesses`` says what nobody stated.

    Errors of reading are MediaErrors that name the image, or the table of times.
    """

    def __init__(self, sequence: Sequence, rate: str | None) -> None:
        self.images = sequence.images
        self.guesses: list[str] = []
        self._suffix, self._decode = sequence.suffix, not TAGS[sequence.suffix]
        self._at = 0
        self._ahead: dict[int, Future[bytes]] = {}
        remote = local_path(self.images[0].url) is None
        self._pool = ThreadPoolExecutor(READ_AHEAD) if remote else None
        durations, ticks_per_second = self._durations(sequence, rate)
        first = self._load(0)
        kind, sizes = SampleKind(TAGS[sequence.suffix]), [image.size_bytes for image in self.images]
        if self._decode:
            kind, samples = raw_picture(first, self.images[0].url)
            sizes = [len(samples)] * len(self.images)
        elif sequence.suffix in (".png", ".jpg"):
            kind = replace(kind, shape=shape_by_density(first))
        self._kind = kind
        self._header = header(kind, sizes, durations, ticks_per_second)
        self._starts = list(accumulate(sizes, initial=len(self._header)))
        self._held = (-1, b"")
        self._damage: dict[int, str] = {}
        self._beside_first = beside_pixels(first)

    def _durations(self, sequence: Sequence, rate: str | None) -> tuple[list[int], int]:
        """How long each image is shown, and in what ticks."""
        if rate is None and sequence.times is not None:
            return ticks_of(sequence.images, sequence.times)
        if rate is None:
            self.guesses.append(f"images carry no times; shown at {DEFAULT_RATE} a second, which --rate changes")
        per_second = Fraction(rate or DEFAULT_RATE)
        return [per_second.denominator] * len(self.images), per_second.numerator

    def name_at(self, position: int) -> str:
        """The name of the image that holds a byte."""
        return file_name(self.images[self._index(position)].url)

    def completed(self, info: VideoInfo) -> VideoInfo:
        """What a probe of this file found, with what nobody stated. MediaError where an image gave no frame."""
        if info.num_frames != len(self.images):
            raise MediaError(
                f"{self.images[0].url}: {len(self.images)} images give {info.num_frames} frames; is this first one damaged?"
            )
        matrix, has_profile = self._beside_first or (None, False)
        untold = self._suffix != ".webp" and not info.color_range  # only lossy WebP is of limited range
        return replace(
            info,
            container="image sequence",
            color_range=2 if untold else info.color_range,
            color_space=UNSPECIFIED if info.pix_fmt.startswith(("gray", "ya", "mono")) else info.color_space,
            display_matrix=matrix,
            side_data=tuple(sorted({*info.side_data} - {"ICC_PROFILE"} | ({"ICC_PROFILE"} if has_profile else set()))),
            guesses=(*self.guesses, *info.guesses),
            damage=(*info.damage, *self._damage.values()),
        )

    def _index(self, position: int) -> int:
        return min(bisect_right(self._starts, position) - 1, len(self.images) - 1)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._starts[-1]}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes; none at the end. A read ends where an image does."""
        if self._at >= self._starts[-1]:
            return b""
        if self._at < self._starts[0]:
            start, data = 0, self._header
        else:
            index = self._index(self._at)
            start, data = self._starts[index], self._sample(index)
        part = data[self._at - start :][: size if size >= 0 else None]
        self._at += len(part)
        return part

    def close(self) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
        super().close()

    def _sample(self, index: int) -> bytes:
        """The bytes of one sample; the last is kept, since FFmpeg reads it in pieces."""
        if self._held[0] != index:
            url, length = self.images[index].url, self._starts[index + 1] - self._starts[index]
            data = self._fetched(index)
            self._refuse_other_turn(data, url)
            if self._decode:
                kind, data = self._decoded(index, data)
                if kind != self._kind:
                    raise MediaError(f"{url}: is not of the size and format of {self.images[0].url}; all images must be alike")
            elif self._suffix == ".jpg" and data.rfind(JPEG_END) < data.rfind(JPEG_SCAN):
                data = bytes(len(data))  # cut short, which FFmpeg's decoder hides by painting the rest grey; zeros it refuses
            if len(data) != length:
                raise MediaError(f"{url}: changed while it was read; run the same command again")
            self._held = (index, data)
        return self._held[1]

    def _decoded(self, index: int, data: bytes) -> tuple[SampleKind, bytes]:
        """The samples of an image; where it is damaged those of the one before, and that is noted."""
        try:
            return raw_picture(data, self.images[index].url)
        except UndecodableError as error:
            if not index:
                raise
            self._damage[index] = str(error)
            return self._kind, self._sample(index - 1)

    def _refuse_other_turn(self, data: bytes, url: str) -> None:
        """A video has one orientation and one profile, which are those of the first image."""
        first, other = self._beside_first, beside_pixels(data)
        if first is None or other is None or first == other:
            return
        what = "is turned otherwise (Exif orientation)" if first[0] != other[0] else "has another colour profile"
        raise MediaError(f"{url}: {what} than {self.images[0].url}; make the images alike first")

    def _fetched(self, index: int) -> bytes:
        if self._pool is None:
            return self._load(index)
        wanted = range(index, min(index + READ_AHEAD, len(self.images)))
        self._ahead = {i: self._ahead.get(i) or self._pool.submit(self._load, i) for i in wanted}
        return self._ahead[index].result()

    def _load(self, index: int) -> bytes:
        folder, name = self.images[index].url.rsplit("/", 1)
        try:
            return Store(folder or "/").read(name)
        except FileNotFoundError as error:
            raise MediaError(f"{self.images[index].url}: is gone; it was there before") from error


class UndecodableError(MediaError):
    """An image that is damaged."""


def raw_picture(data: bytes, url: str) -> tuple[SampleKind, bytes]:
    """The decoded samples of an image for which QuickTime has no name. UndecodableError where it cannot be decoded."""
    try:
        with av.open(io.BytesIO(data), "r") as container:
            frame = next(container.decode(video=0))
    except (av.error.FFmpegError, ValueError, StopIteration) as error:
        reason = " ".join(str(error).split())
        raise UndecodableError(f"{url}: cannot be decoded: {reason}; repair it or take it away") from error
    name = frame.format.name
    if name == "yuva420p":
        raise MediaError(f"{url}: lossy WebP with transparency is not supported; convert the images to PNG first")
    if name not in RAW_TAGS:
        name = "rgba" if any(component.is_alpha for component in frame.format.components) else "bgr24"
        frame = frame.reformat(format=name)
    samples = b"".join(rows(plane, sample_bytes(frame.format)).tobytes() for plane in frame.planes)
    # VP8 is BT.601 at any size (RFC 6386, section 9.2).
    return SampleKind(RAW_TAGS[name], frame.width, frame.height, 6 if name == "yuv420p" else None), samples


def shape_by_density(data: bytes) -> Fraction | None:
    """The shape of the pixels, width to height, of a PNG or JPEG that states how many there are in an inch or a metre.

    FFmpeg takes those numbers for the shape; so it is where they have no unit, which is how FFmpeg itself states it.
    """
    if data[6:11] == b"JFIF\0":  # JFIF 1.02
        unit, across, down = struct.unpack(">BHH", data[13:18].ljust(5, b"\0"))
    elif data.startswith(b"\x89PNG") and (at := data.find(b"pHYs", 0, data.find(b"IDAT"))) > 0:  # PNG, section 11.3.4.3
        across, down, unit = struct.unpack(">IIB", data[at + 4 : at + 13].ljust(9, b"\0"))
    else:
        return None
    return Fraction(down, across) if unit and across and down else None


def beside_pixels(data: bytes) -> tuple[tuple[int, ...] | None, bool] | None:
    """The display matrix (nine 16.16 numbers) that an image's Exif asks for, and whether its ICC profile is not sRGB.

    None where Pillow does not read the image.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            turn = TURNS.get(exif_of(image, data).get(ORIENTATION_TAG, 1))
            profile = image.info.get("icc_profile") or b""
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    is_srgb = any("sRGB".encode(code) in profile for code in ("ascii", "utf-16-be"))
    matrix = tuple(value << 16 for value in (turn[0], turn[1], 0, turn[2], turn[3], 0, 0, 0, 1 << 14)) if turn else None
    return matrix, bool(profile) and not is_srgb


def exif_of(image: Image.Image, data: bytes) -> Image.Exif:
    """Without decoding the pixels, which Pillow does of a PNG, where Exif may come after them."""
    if image.format != "PNG":
        return image.getexif()
    exif, at = Image.Exif(), 8
    while at + 8 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        if kind == b"eXIf":
            exif.load(data[at + 8 : at + 8 + size])
        at += size + 12
    return exif
