"""The command degrade: pairs as files."""

from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from jobs.degrade import degrade
from pipeline.errors import ConfigError, MediaError
from swinir.train.pairs import write_sheet
from tests.swinir.tiny import picture

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(degrade)


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for seed in range(2):
        Image.fromarray(picture(70, 90, seed)).save(folder / f"{seed}.png")
    return folder


def test_each_pair_is_written_before_the_next_is_made(photographs, tmp_path, monkeypatch):
    pairs = [(picture(20, 30, seed), picture(40, 60, seed)) for seed in range(40)]

    def made(*arguments: object):
        for number, pair in enumerate(pairs):
            yield pair
            assert (tmp_path / f"pairs/HR/{number // 2:06d}-{number % 2}.png").exists()

    monkeypatch.setattr("swinir.train.pairs.degraded_pairs", made)
    assert "40 pairs in" in run(photographs, tmp_path / "pairs", "--crops", 2)
    small = sorted((tmp_path / "pairs/LR").iterdir())
    assert all(np.array_equal(Image.open(path), lr) for path, (lr, _) in zip(small, pairs, strict=True))
    write_sheet(pairs, tmp_path / "sheet.png")
    assert (tmp_path / "pairs/pairs.png").read_bytes() == (tmp_path / "sheet.png").read_bytes()


def test_a_photograph_that_cannot_be_read_leaves_a_folder_that_the_same_command_takes(photographs, tmp_path):
    (photographs / "2.png").write_bytes((photographs / "1.png").read_bytes()[:300])
    with pytest.raises(MediaError, match=r"2\.png: damaged PNG picture.*; take it out or mend it"):
        run(photographs, tmp_path / "pairs")
    (photographs / "2.png").unlink()
    assert "2 pairs in" in run(photographs, tmp_path / "pairs")
    with pytest.raises(ConfigError, match="is there and not empty; name a new folder"):
        run(photographs, tmp_path / "pairs")


def test_pairs_are_written_on_this_machine_alone(photographs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="s3://bucket/pairs is a URL; name a local folder"):
        run(photographs, "s3://bucket/pairs")
    assert list(Path().iterdir()) == [Path("photographs")]
