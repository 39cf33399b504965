"""What a shard makes of pictures that meet in it: neither depth, nor name, nor size of one changes another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pipeline import local
from pipeline.config import ImagesConfig
from pipeline.dataset import png, workload
from pipeline.dataset.job import upscale_images
from pipeline.dataset.shards import write_list
from pipeline.dataset.sources import open_source
from pipeline.dataset.workload import ShardRunner, ShardWorkload, shard_unit, threads_for
from pipeline.errors import ConfigError
from pipeline.storage import Store
from swinir.spec import load_spec
from swinir.upscaler import Upscaler
from tests.pipeline.dataset.files import noise, random_picture, saved
from tests.pipeline.video.conftest import Listening


def upscale(source: Path, destination: Path, **settings: Any) -> dict[str, dict[str, Any]]:
    """The rows of the index by key."""
    config = ImagesConfig(**{"model": "nearest-x2", "device": "cpu", **settings})
    upscale_images(str(source), str(destination), config, local.run_units, Listening())
    return {row["key"]: row for row in pq.read_table(destination / "_index.parquet").to_pylist()}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    return folder


def test_pictures_of_8_and_16_bits_and_one_size_go_through_the_model_apart(source: Path, tmp_path: Path) -> None:
    shallow = random_picture(21, 27, 3, np.uint8)
    (source / "a.png").write_bytes(png.encode(noise(21, 27, 3), 6))
    (source / "b.png").write_bytes(saved(shallow, "PNG"))
    (source / "c.bmp").write_bytes(saved(shallow, "BMP"))
    found = upscale(source, tmp_path / "out")
    assert max(row["colour_drift"] for row in found.values()) < 1
    for name in ("b.png", "c.bmp.png"):
        with Image.open(tmp_path / "out" / name) as image:
            assert np.array_equal(np.array(image), shallow.repeat(2, axis=0).repeat(2, axis=1))


def test_a_bad_picture_and_a_side_file_of_the_same_bytes_each_keep_their_status(source: Path, tmp_path: Path) -> None:
    for name in ("a.json", "b.png", "c.json", "d.png"):
        (source / name).write_bytes(b"")
    found = upscale(source, tmp_path / "out")
    assert [found[key]["status"] for key in sorted(found)] == ["skipped", "decode_error", "skipped", "decode_error"]


def test_a_large_picture_is_heard_of_while_the_model_works_on_it(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workload, "PULSE_S", 0.001)
    (source / "a.png").write_bytes(saved(random_picture(1200, 300, 3, np.uint8), "PNG"))
    work = Store(str(tmp_path / "work"))
    config = ImagesConfig(model="bicubic-x2", device="cpu")
    spec = load_spec(config.model, None, "auto", None)
    job = ShardWorkload(str(source), config, spec, work, Store(str(tmp_path / "out")))
    items = list(open_source(str(source)).items())
    runner = ShardRunner(job, Upscaler("bicubic-x2", device="cpu", tile=32))
    done = list(runner.run(shard_unit("run", write_list(work, items), 0, 1), "attempt"))
    assert done.count(0) > 2
    assert done[-1] == 1


def test_fresh_does_not_write_among_files_of_others(source: Path, tmp_path: Path) -> None:
    (source / "a.png").write_bytes(saved(random_picture(6, 5, 3, np.uint8), "PNG"))
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.png").write_bytes(b"precious")
    with pytest.raises(ConfigError, match=r"a\.png\); pass --overwrite"):
        upscale(source, other, fresh=True)
    assert (other / "a.png").read_bytes() == b"precious"
    assert upscale(source, other, overwrite=True)["a.png"]["status"] == "ok"
    upscale(source, other, fresh=True)


def test_a_folder_that_cannot_be_made_is_refused_in_one_line(source: Path) -> None:
    (source / "a.png").write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot write in /proc: "):
        upscale(source, Path("/proc/out"))


@pytest.mark.parametrize(("model", "expected"), [("nearest-x2", 1), ("lightweight-x2", 2)])
def test_only_baselines_compute_on_one_thread_and_the_number_is_put_back(model: str, expected: int) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with threads_for(Upscaler(model)):
            assert torch.get_num_threads() == expected
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
