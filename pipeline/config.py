"""Every setting of a run, checked once and passed down; YAML files and command-line options both become one of these."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline.errors import ConfigError

CODECS = ("libx264", "libx265", "libsvtav1", "ffv1")
Codec = Literal["libx264", "libx265", "libsvtav1", "ffv1"]

DEFAULT_CRF = {"libx264": 16, "libx265": 18, "libsvtav1": 24}
DEFAULT_PRESET = {"libx264": "medium", "libx265": "medium", "libsvtav1": "8"}


class RunConfig(BaseModel):
    """What the video and the image job share: the model, and where it runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "lightweight-x2"
    weights: str | None = None
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


class VideoConfig(RunConfig):
    """One video job."""

    codec: Codec = "libx264"
    crf: float | None = Field(default=None, ge=0, le=63)
    preset: str | None = None
    pix_fmt: str | None = None
    encoder_threads: int = Field(default=4, ge=1, description="part of the result: encoders' bytes depend on it")
    segment_seconds: float = Field(default=5, gt=0)
    stream: int | None = Field(default=None, ge=0, description="index of the video stream to upscale")
    on_decode_error: Literal["fail", "repeat"] = "fail"
    drop_incompatible: bool = False

    @model_validator(mode="after")
    def _fill_encoder_defaults(self) -> Self:
        if self.codec == "ffv1" and self.crf is not None:
            raise ValueError("ffv1 is lossless and takes no crf")
        if self.crf is None:
            object.__setattr__(self, "crf", DEFAULT_CRF.get(self.codec))
        if self.preset is None:
            object.__setattr__(self, "preset", DEFAULT_PRESET.get(self.codec))
        return self


def build_config(file: str | Path | None, options: dict[str, Any]) -> VideoConfig:
    """The settings of ``file`` (YAML) with the given options over them; options that are None were not given.

    Raises ConfigError on an unreadable file, an unknown key or a value out of range.
    """
    settings = read_yaml(Path(file)) if file else {}
    settings |= {key: value for key, value in options.items() if value is not None}
    try:
        return VideoConfig(**settings)
    except ValidationError as error:
        raise ConfigError(_one_line(error, str(file) if file else "the options")) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; ConfigError where there is none."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold a mapping of settings, got {type(content).__name__}")
    return content


def _one_line(error: ValidationError, where: str) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key, VideoConfig.model_fields, 1)
        return f"unknown key {key!r} in {where}" + (f"; did you mean {close[0]!r}?" if close else "")
    message = first["msg"].removeprefix("Value error, ")
    return f"{key} in {where}: {message}, got {first['input']!r}" if key else f"{where}: {message}"
