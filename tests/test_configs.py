"""Every file in configs/ is read by the code that a user's file goes through, and says what it claims to."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from jobs.settings import read_settings
from jobs.train import known_settings, train_config
from pipeline.config import ImagesConfig, VideoConfig, build_config
from pipeline.errors import ConfigError
from pipeline.video.streams import check_codec
from swinir.presets import preset
from swinir.train.degrade import Degradation
from swinir.train.recipe import TrainConfig, learning_rate

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
VIDEO = sorted(CONFIGS.glob("video*.yaml"))
IMAGES = [CONFIGS / "images.yaml"]
TRAIN = sorted((CONFIGS / "train").glob("*.yaml"))
DEGRADE = sorted((CONFIGS / "degrade").glob("*.yaml"))


def test_every_file_has_a_loader():
    assert sorted(CONFIGS.rglob("*.*")) == sorted([*VIDEO, *IMAGES, *TRAIN, *DEGRADE])


@pytest.mark.parametrize("path", VIDEO, ids=lambda path: path.name)
def test_video_settings_load(path):
    config = build_config(VideoConfig, path, {})
    assert preset(config.model).name == config.model
    check_codec(config.codec, "matroska", "out.mkv")


@pytest.mark.parametrize(("name", "kind"), [("video.yaml", VideoConfig), ("images.yaml", ImagesConfig)])
def test_the_spelled_out_defaults_are_the_defaults_and_all_of_them(name, kind):
    path = CONFIGS / name
    assert build_config(kind, path, {}) == kind()
    assert set(yaml.safe_load(path.read_text())) == set(kind.model_fields)


@pytest.mark.parametrize("codec", ["libx265", "libsvtav1", "ffv1"])
def test_another_codec_over_the_defaults_gets_its_own_quality(codec):
    assert build_config(VideoConfig, CONFIGS / "video.yaml", {"codec": codec}) == VideoConfig(codec=codec)


@pytest.mark.parametrize(
    ("text", "options", "same"),
    [
        ("fit: 1920x1080", {"scale": 1.5}, {}),
        ("scale: 2", {"height": 2160}, {}),
        ("codec: libx265\ncrf: 18", {"codec": "ffv1"}, {}),
        ("codec: libx265\npreset: slow\npix_fmt: yuv420p10le", {"codec": "libsvtav1", "crf": 30}, {}),
        ("crf: 20", {"codec": "libx265"}, {}),
        ("codec: libx265\ncrf: 20", {"codec": "libx265", "preset": "slow"}, {"crf": 20}),
        ("codec: libx265\ncrf: 20\nfit: 100x100", {"tile": 96}, {"codec": "libx265", "crf": 20, "fit": "100x100"}),
    ],
)
def test_an_option_wins_over_what_the_file_says_instead_of_it_and_no_more(tmp_path, text, options, same):
    (tmp_path / "c.yaml").write_text(text)
    assert build_config(VideoConfig, tmp_path / "c.yaml", options) == VideoConfig(**options, **same)


def test_an_option_of_images_wins_over_the_other_size_of_the_file(tmp_path):
    (tmp_path / "c.yaml").write_text("target_long_side: 4096")
    assert build_config(ImagesConfig, tmp_path / "c.yaml", {"scale": 2.0}) == ImagesConfig(scale=2)


@pytest.mark.parametrize("settings", [{"scale": 2, "fit": "100x100"}, {"codec": "ffv1", "crf": 18}])
def test_what_contradicts_itself_in_one_place_is_refused(tmp_path, settings):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
    for file, options in ((tmp_path / "c.yaml", {}), (None, settings)):
        with pytest.raises(ConfigError, match=r"exclude one another|takes no crf"):
            build_config(VideoConfig, file, options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "crf in .*c.yaml: Input should be"),
        ({"crf": 18.0, "height": 3}, "height in the options: Input should be"),
        ({"crf": 18.0, "scale": 3.0, "height": 20}, "c.yaml and the options: scale, height and fit exclude one another"),
    ],
)
def test_an_error_names_the_place_of_the_wrong_value(tmp_path, options, message):
    (tmp_path / "c.yaml").write_text("crf: 300")
    with pytest.raises(ConfigError, match=message):
        build_config(VideoConfig, tmp_path / "c.yaml", options)


@pytest.mark.parametrize(
    ("kind", "text", "same"),
    [
        (VideoConfig, "reuse: off", {"reuse": "off"}),
        (VideoConfig, "codec: libsvtav1\npreset: 8", {"codec": "libsvtav1", "preset": "8"}),
        (ImagesConfig, "subsampling: 422", {"subsampling": "422"}),
    ],
)
def test_what_yaml_takes_for_a_number_or_no_may_be_written_without_quotes(tmp_path, kind, text, same):
    (tmp_path / "c.yaml").write_text(text)
    assert build_config(kind, tmp_path / "c.yaml", {}) == kind(**same)


@pytest.mark.parametrize("path", TRAIN, ids=lambda path: path.name)
def test_training_settings_load(path):
    settings = read_settings(path, known_settings())
    assert set(settings) == {field.name for field in fields(TrainConfig)}
    name = settings["model"]
    config = train_config(settings, "cpu")
    assert config.model == preset(name).config
    assert path.stem.removeprefix("paper-").removeprefix("gpu-") == name


@pytest.mark.parametrize("name", ["lightweight-x2", "lightweight-x4"])
def test_the_spelled_out_settings_of_training_are_the_defaults(name):
    settings = read_settings(CONFIGS / "train" / f"{name}.yaml", known_settings())
    assert train_config(settings, "cpu") == train_config({"model": name}, "cpu")


def test_the_spelled_out_degradation_is_the_default_and_all_of_it():
    settings = read_settings(CONFIGS / "train" / "real-light-x2.yaml", known_settings())
    assert set(settings["degradation"]) == {field.name for field in fields(Degradation)}
    assert Degradation(**settings["degradation"]) == Degradation()


@pytest.mark.parametrize("path", DEGRADE, ids=lambda path: path.name)
def test_degradations_load(path):
    assert Degradation(**read_settings(path, {field.name for field in fields(Degradation)})) != Degradation()


def test_the_papers_settings_are_those_of_the_paper():
    config = train_config(read_settings(CONFIGS / "train" / "paper-lightweight-x2.yaml", known_settings()), "cpu")
    assert (config.steps, config.batch_size, config.patch, config.loss) == (500_000, 64, 64, "l1")
    milestones = [step for step in range(1, 500_000) if learning_rate(step, config) < learning_rate(step - 1, config)]
    assert milestones == [250_000, 400_000, 450_000, 475_000]
    assert learning_rate(0, config) == 2e-4


def test_weights_may_be_named_by_a_path_object():
    named = build_config(VideoConfig, None, {"weights": Path("a.safetensors"), "weights_fidelity": Path("b.safetensors")})
    assert (named.weights, named.weights_fidelity) == ("a.safetensors", "b.safetensors")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("on: 1", "the key True is no text; quote it"),
        ("- a", "must hold a mapping of settings, got list"),
        ("segment_seconds: .inf", "segment_seconds in .*finite number"),
        ("stall_seconds: .nan", "stall_seconds in .*finite number"),
        ("fit: '100'", "fit must be a width and a height from 10 to 99999, such as 1920x1080, got '100'"),
        ("reuse: near", "reuse must be exact, off, or near: and a number of 8-bit codes"),
    ],
)
def test_a_file_that_says_nothing_sensible_is_refused_in_one_line(tmp_path, text, says):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=says) as refused:
        build_config(VideoConfig, tmp_path / "c.yaml", {})
    assert "\n" not in str(refused.value)


def test_a_file_of_comments_asks_for_nothing(tmp_path):
    (tmp_path / "c.yaml").write_text("# crf: 20\n")
    assert build_config(VideoConfig, tmp_path / "c.yaml", {}) == VideoConfig()
