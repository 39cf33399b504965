"""Every setting of a run, checked once and passed down; YAML files and command-line options both become one of these."""

from __future__ import annotations

import difflib
import os
import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline.errors import ConfigError

CODECS = ("libx264", "libx265", "libsvtav1", "ffv1", "png", "gif")
Codec = Literal["libx264", "libx265", "libsvtav1", "ffv1", "png", "gif"]
PICTURE_CODECS = ("png", "gif")  # RGB of full range, without a container around that says more of it

DeinterlaceChoice = Literal["bwdif", "bwdif-fields", "progressive"]

CHOSEN_FOR_A_CODEC = {"crf", "preset", "pix_fmt"}
DEFAULT_CRF = {"libx264": 16, "libx265": 18, "libsvtav1": 24}
MAX_CRF = {"libx264": 51, "libx265": 51, "libsvtav1": 63}  # x264 itself takes more, and means 51
DEFAULT_PRESET = {"libx264": "medium", "libx265": "medium", "libsvtav1": "8"}

MAX_TICKS = 2**31 - 1  # a second, and a frame: FFmpeg reads the numbers of a QuickTime clock as signed

# Which weights are in use, said better by their digest.
WEIGHTS_SETTINGS = {"weights", "weights_fidelity", "strength"}

PathText = Annotated[str, BeforeValidator(lambda path: os.fspath(path) if isinstance(path, os.PathLike) else path)]


class RunConfig(BaseModel):
    """What the video and the image job share: the model, and where it runs."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    SIZES: ClassVar[tuple[str, ...]] = ()  # settings that exclude one another

    model: str = "lightweight-x2"
    weights: PathText | None = None
    strength: float | None = Field(default=None, ge=0, le=1, description="from fidelity weights, 0, to the model's own, 1")
    weights_fidelity: PathText | None = Field(default=None, description="those at strength 0; None: the model's published pair")
    ensemble: Literal[1, 8] = Field(default=1, description="8: the mean over all flips and transposes, at 8 times the cost")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    tile: int | None = Field(default=None, ge=16, description="LR pixels; a multiple of the model's window")
    workers: int | None = Field(default=None, ge=1)
    address: str | None = None
    stall_seconds: float = Field(default=900, gt=0, description="a worker silent for longer is replaced")
    fresh: bool = False
    overwrite: bool = False

    @field_validator("address")
    @classmethod
    def _no_ray_client(cls, address: str | None) -> str | None:
        if address and address.startswith("ray://"):
            raise ValueError("Ray Client cannot stream progress; run on a node of the cluster, or through 'ray job submit'")
        return address

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if sum(getattr(self, name) is not None for name in self.SIZES) > 1:
            raise ValueError(f"{', '.join(self.SIZES[:-1])} and {self.SIZES[-1]} exclude one another")
        return self


class VideoConfig(RunConfig):
    """One video job."""

    SIZES: ClassVar = ("scale", "height", "fit")

    model: str = "real-light-x2"  # video has been compressed
    codec: Codec = "libx264"
    crf: float | None = Field(default=None, ge=0, le=63)
    preset: str | None = Field(default=None, coerce_numbers_to_str=True)
    pix_fmt: str | None = None
    encoder_threads: int = Field(default=4, ge=1, description="part of the result: encoders' bytes depend on it")
    segment_seconds: float | None = Field(default=None, gt=0, description="in a unit, 24 frames or more; None is 250 frames")
    scale: float | None = Field(default=None, gt=0, le=64, description="of both sides, whatever the model's is")
    height: int | None = Field(default=None, ge=16, le=65536, description="of the picture as it is shown")
    fit: str | None = Field(default=None, description="WIDTHxHEIGHT to fill as it is shown")
    stream: int | None = Field(default=None, ge=0, description="index of the video stream to upscale")
    deinterlace: DeinterlaceChoice | None = Field(default=None, description="None stops at interlaced video")
    rate: str | None = Field(default=None, description="frames a second of an image sequence, such as 24000/1001")
    on_decode_error: Literal["fail", "repeat"] = "fail"
    reuse: str = Field(default="exact", description="or off, or near:T, which takes tiles within T 8-bit codes for equal")
    convert_subtitles: bool = Field(default=False, description="text subtitles into the container's own, without all styles")
    drop_incompatible: bool = False

    @property
    def reuse_within(self) -> float | None:
        """How far tiles of neighbouring frames may differ, in 8-bit codes, not to be computed again; None computes all."""
        return None if self.reuse == "off" else float(self.reuse.removeprefix("near:").replace("exact", "0"))

    @property
    def fit_box(self) -> tuple[int, int]:
        """Width and height of ``fit``."""
        width, height = map(int, (self.fit or "0x0").split("x"))
        return width, height

    @field_validator("rate", mode="before")
    @classmethod
    def _is_a_rate(cls, rate: object) -> str | None:
        if rate is None:
            return None
        try:
            exact = Fraction(str(rate))
        except (ValueError, ZeroDivisionError):
            exact = Fraction(0)
        if not Fraction(1, MAX_TICKS) <= exact <= MAX_TICKS:
            raise ValueError("rate must be a positive number or fraction, such as 24000/1001")
        if max(exact.numerator, exact.denominator) > MAX_TICKS:
            near = exact.limit_denominator(1001) or Fraction(1, round(1 / exact))
            raise ValueError(f"rate has more digits than a clock counts; write {near}")
        return str(exact)

    @field_validator("fit")
    @classmethod
    def _is_a_box(cls, fit: str | None) -> str | None:
        if fit is not None and not re.fullmatch(r"[1-9]\d{1,4}x[1-9]\d{1,4}", fit):
            raise ValueError("fit must be a width and a height from 10 to 99999, such as 1920x1080")
        return fit

    @field_validator("reuse", mode="before")
    @classmethod
    def _as_written(cls, reuse: object) -> object:
        return "off" if reuse is False else reuse  # which is how YAML reads it

    @field_validator("reuse")
    @classmethod
    def _is_a_way(cls, reuse: str) -> str:
        if not re.fullmatch(r"exact|off|near:\d+(\.\d+)?", reuse):
            raise ValueError("reuse must be exact, off, or near: and a number of 8-bit codes, such as near:1.5")
        return reuse

    @model_validator(mode="after")
    def _fill_encoder_defaults(self) -> Self:
        if self.codec not in DEFAULT_CRF and self.crf is not None:
            raise ValueError(f"{self.codec} takes no crf")
        if self.crf is not None and self.crf > MAX_CRF[self.codec]:
            raise ValueError(f"{self.codec} takes a crf from 0 to {MAX_CRF[self.codec]}")
        if self.crf is None:
            object.__setattr__(self, "crf", DEFAULT_CRF.get(self.codec))
        if self.preset is None:
            object.__setattr__(self, "preset", DEFAULT_PRESET.get(self.codec))
        return self


class ImagesConfig(RunConfig):
    """One image job."""

    SIZES: ClassVar = ("scale", "target_long_side")

    output: Literal["files", "parquet", "webdataset"] = "files"
    format: Literal["same", "png", "jpeg", "webp"] = "same"
    png_level: int = Field(default=3, ge=0, le=9)
    quality: int = Field(default=95, ge=1, le=100, description="of JPEG and WebP")
    subsampling: Annotated[Literal["444", "422", "420"], BeforeValidator(str)] = "444"
    scale: float | None = Field(default=None, gt=0, le=64, description="of both sides, whatever the model's is")
    target_long_side: int | None = Field(default=None, ge=1, description="pixels of the longer side of each result")
    min_side: int | None = Field(default=None, ge=1, description="a shorter side this long needs no upscaling: skipped")
    max_pixels: int | None = Field(default=None, ge=1, description="a picture of more needs no upscaling: skipped")
    bomb_pixels: int = Field(default=1 << 29, ge=1, description="a picture of more is not decoded")
    animated: Literal["each", "first", "refuse"] = "refuse"
    image_column: str | None = None
    url_column: str | None = None
    shard_rows: int = Field(default=256, ge=1, description="pictures in a unit of work, on average")
    retry_failed: bool = False


C = TypeVar("C", VideoConfig, ImagesConfig)


def build_config(kind: type[C], file: str | Path | None, options: dict[str, Any]) -> C:
    """The settings of ``file`` (YAML) with the given options over them; options that are None were not given.

    Only options are in the result's ``model_fields_set``: a file may hold settings for destinations of another kind.

    Raises ConfigError on an unreadable file, an unknown key or a value out of range.
    """
    settings = read_yaml(Path(file)) if file else {}
    given = {key: value for key, value in options.items() if value is not None}
    void = made_void(kind, settings, given)
    try:
        config = kind(**{key: value for key, value in settings.items() if key not in void} | given)
    except ValidationError as error:
        raise ConfigError(_one_line(error, kind, file, given)) from error
    config.model_fields_set.intersection_update(given)
    return config


def made_void(kind: type[RunConfig], settings: dict[str, Any], given: dict[str, Any]) -> set[str]:
    """Which settings of a file mean nothing beside the options: other kinds of size, and what was chosen for another codec."""
    void = set() if given.keys().isdisjoint(kind.SIZES) else {*kind.SIZES}
    codec = settings.get("codec", VideoConfig.model_fields["codec"].default)
    return void if given.get("codec", codec) == codec else void | CHOSEN_FOR_A_CODEC


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, {} where all of it is comments; ConfigError where there is none."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold a mapping of settings, got {type(content).__name__}")
    for key in content:
        if not isinstance(key, str):
            raise ConfigError(f"{path}: the key {key!r} is no text; quote it (YAML reads on, off, yes and no as true or false)")
    return content


def _one_line(error: ValidationError, kind: type[RunConfig], file: str | Path | None, given: dict[str, Any]) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    settings = str(file) if key or not given else f"{file} and the options"
    where = settings if file and key not in given else "the options"
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key, kind.model_fields, 1)
        return f"unknown key {key!r} in {where}" + (f"; did you mean {close[0]!r}?" if close else "")
    message = first["msg"].removeprefix("Value error, ")
    return f"{key} in {where}: {message}, got {first['input']!r}" if key else f"{where}: {message}"
