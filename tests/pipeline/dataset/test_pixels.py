"""An archive as RGB in memory, whatever its files and columns are."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from files import drawn, exif_block, saved
from PIL import Image

from pipeline.dataset.pixels import ReadablePictures, RgbPictures, as_rgb
from pipeline.errors import ConfigError, MediaError
from tests.swinir.tiny import picture

A, B, C = (picture(20 + 2 * seed, 30, seed) for seed in range(3))
FILES = [saved(pixels, "PNG") for pixels in (A, B, C)]


def write(path: Path, values: list[bytes | None], column: str) -> Path:
    """A Parquet file of one column, as Hugging Face's image or as binary, two rows to a group."""
    struct = [{"bytes": value, "path": None} for value in values]
    array = pa.array(struct, pa.struct([("bytes", pa.binary()), ("path", pa.string())])) if column == "image" else values
    pq.write_table(pa.table({"key": [str(n) for n in range(len(values))], column: array}), path, row_group_size=2)
    return path


@pytest.mark.parametrize("column", ["image", "jpg"])
def test_a_parquet_file_gives_its_pictures_in_the_order_of_its_rows(tmp_path, column):
    found = RgbPictures(str(write(tmp_path / "data.parquet", FILES, column)))
    assert len(found) == 3
    for pixels, truth in zip(found, (A, B, C), strict=True):
        assert np.array_equal(pixels, truth)


def test_a_folder_may_hold_parquet_files_and_pictures(tmp_path):
    write(tmp_path / "b.parquet", FILES[1:], "image")
    (tmp_path / "a.png").write_bytes(FILES[0])
    (tmp_path / "README.md").write_text("not a picture, and nobody takes it for one")
    (tmp_path / "__card__").mkdir()  # as `swinir images` leaves it: a sheet of pictures, none of its results
    (tmp_path / "__card__" / "pairs.png").write_bytes(FILES[0])
    assert [pixels.shape for pixels in RgbPictures(str(tmp_path))] == [A.shape, B.shape, C.shape]


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (FILES[1][:300], "data.parquet, row 1: damaged PNG picture: "),
        (b"GIF of old", "data.parquet, row 1: not a picture"),
        (None, "data.parquet: row 1 holds no picture"),
    ],
)
def test_a_damaged_row_is_named(tmp_path, damaged, message):
    path = write(tmp_path / "data.parquet", [FILES[0], damaged, FILES[2]], "image")
    with pytest.raises(MediaError, match=f"{message}.*; take it out or mend it") as caught:
        list(RgbPictures(str(path)))
    assert "\n" not in str(caught.value)
    found = RgbPictures(str(path))
    assert np.array_equal(found[2], C)  # the others can be had, one by one
    with pytest.raises(MediaError, match=message):
        found[1]


def test_where_pictures_keep_their_places_one_that_cannot_be_read_is_empty_and_told_once(tmp_path):
    path = write(tmp_path / "data.parquet", [FILES[0], FILES[1][:300], None], "image")
    told: list[str] = []
    found = ReadablePictures(RgbPictures(str(path)), told.append)
    for _ in range(2):
        assert [found[index].shape for index in range(len(found))] == [A.shape, (0, 0, 3), (0, 0, 3)]
    damaged, missing = told
    assert re.fullmatch(".*data.parquet, row 1: damaged PNG picture: .*; passed over", damaged)
    assert missing == f"{path}: row 2 holds no picture; passed over"


def test_a_folder_can_be_left_out(tmp_path):
    for folder in ("photographs", "run"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(FILES[0])
    found = RgbPictures(str(tmp_path), exclude=str(tmp_path / "run"))
    assert [key for key, _ in found.names_and_sizes()] == ["photographs/a.png"]


def test_folders_of_other_runs_are_left_out(tmp_path):
    for key in (
        "a/1.png",
        "a/state.pt.png",
        "run/log.jsonl",
        "run/pairs.png",
        "run/curve.png",
        "run/state.part",
        "run/x/2.png",
    ):
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).write_bytes(FILES[0])
    assert [key for key, _ in RgbPictures(str(tmp_path)).names_and_sizes()] == ["a/1.png", "a/state.pt.png", "run/x/2.png"]


def test_two_image_columns_must_be_chosen_from(tmp_path):
    table = pa.table({"photo": FILES, "mask": FILES[::-1]})
    pq.write_table(table, tmp_path / "two.parquet")
    with pytest.raises(ConfigError, match="choose by --image-column"):
        RgbPictures(str(tmp_path / "two.parquet"))
    assert np.array_equal(RgbPictures(str(tmp_path / "two.parquet"), "mask")[0], C)


def test_pictures_come_one_by_one_as_they_come_in_a_row(tmp_path):
    write(tmp_path / "b.parquet", FILES[1:], "image")
    (tmp_path / "a.png").write_bytes(FILES[0])
    found = RgbPictures(str(tmp_path))
    assert len(found) == 3
    for index in (2, 0, 1, -1):
        assert np.array_equal(found[index], list(found)[index])
    with pytest.raises(IndexError):
        found[3]


def test_pictures_are_upright_and_of_three_channels(tmp_path):
    Image.fromarray(drawn()).save(tmp_path / "turned.jpg", exif=exif_block(), quality=95)
    with Image.open(tmp_path / "turned.jpg") as image:
        assert RgbPictures(str(tmp_path))[0].shape == (*image.size, 3)  # on its side in the file


def test_a_jpeg_is_what_pillow_makes_of_it(tmp_path):
    (tmp_path / "a.jpg").write_bytes(saved(A, "JPEG"))
    assert np.array_equal(RgbPictures(str(tmp_path))[0], np.asarray(Image.open(io.BytesIO(saved(A, "JPEG")))))


def test_channels_and_depths_become_rgb_of_8_bits():
    grey = np.array([[[0], [128], [65535]]], np.uint16)
    assert as_rgb(grey).tolist() == [[[0] * 3, [0] * 3, [255] * 3]]
    assert as_rgb(np.array([[[257 * 7 + 129, 9]]], np.uint16)).tolist() == [[[8] * 3]]  # rounded; alpha is left out
    assert np.array_equal(as_rgb(np.dstack([A, A[..., :1]])), A)
