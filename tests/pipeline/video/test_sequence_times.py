"""When each image of a sequence is shown: by a rate or a table, exactly or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from pipeline.config import VideoConfig, build_config
from pipeline.errors import ConfigError, MediaError
from tests.media import times, write_video
from tests.pipeline.video.test_sequences import write_images


def with_table(folder: Path, durations: list[str], name: str = "times.csv") -> Path:
    """Images with the table of times that lies with them."""
    write_images(folder, len(durations))
    rows = [f"{number:06d}.png,0,{duration}\n" for number, duration in enumerate(durations)]
    (folder / name).write_text("file,start_s,duration_s\n" + "".join(rows))
    return folder


@pytest.mark.parametrize(("rate", "exact"), [("23.976", "2997/125"), (29.97, "2997/100"), (24, "24"), ("24000/1001",) * 2])
def test_a_rate_is_what_was_written(rate: object, exact: str) -> None:
    assert VideoConfig(rate=rate).rate == exact


@pytest.mark.parametrize(
    ("rate", "other"),
    [
        ("23.976023976", "24000/1001"), ("29.97002997", "30000/1001"), ("59.9400599400", "60000/1001"),
        ("2999.9999999", "3000"), ("0.00001234567890123", "1/81000"),
    ],
)  # fmt: skip
def test_a_rate_that_no_clock_counts_is_refused_with_one_that_it_does(rate: str, other: str) -> None:
    with pytest.raises(ConfigError, match=f"more digits than a clock counts; write {other}, got '{rate}'"):
        build_config(VideoConfig, None, {"rate": rate})
    assert VideoConfig(rate=other).rate == other


@pytest.mark.parametrize("rate", ["0", "-25", "nan", "25 fps", "1/0", "3000000000", "1e-12"])
def test_what_is_no_rate_is_refused(rate: str) -> None:
    with pytest.raises(ConfigError, match="rate must be a positive number or fraction, such as 24000/1001, got"):
        build_config(VideoConfig, None, {"rate": rate})


def test_the_finest_clock_is_exact(tmp_path: Path, job) -> None:
    source = write_images(tmp_path / "in", 4)
    job(source, tmp_path / "out.mp4", rate="1999999999/83416683")
    assert times(tmp_path / "out.mp4") == [n * Fraction(83416683, 1999999999) for n in range(4)]


@pytest.mark.parametrize(
    ("third", "said"),
    [
        ("0.041666666667", "more digits than a clock counts; write fractions such as 1001/24000"),
        ("3000000000", "more digits than a clock counts"),
        ("-1/25", "000002.png lasts '-1/25'; write seconds above 0, such as 1001/24000"),
        ("0", "lasts '0'; write seconds above 0"),
        ("soon", "lasts 'soon'; write seconds above 0"),
    ],
)
def test_a_table_that_no_clock_counts_is_refused_in_one_line(tmp_path: Path, job, third: str, said: str) -> None:
    source = with_table(tmp_path / "in", ["1/25", "1/25", third])
    with pytest.raises(MediaError, match=f"times.csv: .*{said}") as caught:
        job(source, tmp_path / "out.mkv")
    assert "\n" not in str(caught.value)
    assert job(source, tmp_path / "out.mkv", rate="25")["frames_out"] == 3


def without_the_second(folder: Path) -> None:
    (folder / "000001.png").unlink()


def without_the_last(folder: Path) -> None:
    (folder / "000002.png").unlink()


def with_one_more(folder: Path) -> None:
    write_images(folder, 4)


def with_a_row_cut_short(folder: Path) -> None:
    (folder / "times.csv").write_text((folder / "times.csv").read_text().replace("000001.png,0,", "000001.png,"))


def twice_in_the_table(folder: Path) -> None:
    table = (folder / "times.csv").read_text()
    (folder / "times.csv").write_text(table.replace("000001", "000000"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without_the_second, "image 2 is 000001.png in it, and 000002.png among the images"),
        (without_the_last, "image 3 is 000002.png in it, and missing among the images"),
        (with_one_more, "image 4 is missing in it, and 000003.png among the images"),
        (with_a_row_cut_short, "image 2 is 000002.png in it, and 000001.png among the images"),
        (twice_in_the_table, "image 2 is 000000.png in it, and 000001.png among the images"),
    ],
)
def test_a_table_of_other_images_is_refused_unless_a_rate_takes_its_place(
    tmp_path: Path, job, change: Callable[[Path], None], said: str
) -> None:
    source = with_table(tmp_path / "in", ["1/24"] * 3)
    change(source)
    with pytest.raises(MediaError, match=f"times.csv: {said}; make them agree, or give --rate"):
        job(source, tmp_path / "out.mp4")
    job(source, tmp_path / "out.mp4", rate="24")
    assert times(tmp_path / "out.mp4")[1] == Fraction(1, 24)


def test_a_table_that_names_none_of_the_images_is_not_theirs(tmp_path: Path, job) -> None:
    source = write_images(tmp_path / "in", 3)
    (source / "f-%d.png.times.csv").write_text("file,start_s,duration_s\nf-1.png,0,1/24\n")
    assert "shown at 25 a second" in job(source, tmp_path / "out.mkv")["guesses"][0]


@pytest.mark.parametrize("name", ["a,c_%03d.png", 'the "best", %d.png'])
def test_a_comma_in_a_name_is_a_part_of_it(tmp_path: Path, job, name: str) -> None:
    source = write_video(tmp_path / "in.mp4", 4, rate=24)
    (tmp_path / "out").mkdir()
    job(source, tmp_path / "out" / name, preset=None)
    job(tmp_path / "out" / name, tmp_path / "back.mp4", model="identity")
    assert times(tmp_path / "back.mp4") == times(source)


def test_a_number_in_a_file_url_is_no_escape(tmp_path: Path, job) -> None:
    source = write_video(tmp_path / "in.mp4", 3, rate=24)
    (tmp_path / "a b").mkdir()
    job(f"file://{source}", f"file://{tmp_path}/a%20b/c%20%06d.png", preset=None)
    names = [f"c {number:06d}.png" for number in (1, 2, 3)]
    assert sorted(os.listdir(tmp_path / "a b")) == sorted([*names, "c %06d.png.report.json", "c %06d.png.times.csv"])
    job(f"file://{tmp_path}/a%20b/c%20%06d.png", tmp_path / "back.mp4", model="identity")
    assert times(tmp_path / "back.mp4") == times(source)
