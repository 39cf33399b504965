"""The published models by name, those of their users too, where their files are, and three baselines without weights."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from swinir.model import SwinIRConfig, Upsampler
from swinir.resize import resize

MODEL_ZOO = Path(__file__).with_name("model_zoo.json")
PHHOFM = "https://github.com/Phhofm/models/raw/main"
KIM2091 = "https://github.com/Kim2091/Kim2091-Models/releases/download"
BUBBLE = "https://github.com/Bubblemint864/AI-Models/releases/download"
# The community's rows of the model zoo: name, task, file, and its address where a program can fetch it.
COMMUNITY: Mapping[str, tuple[str, str, str, str | None]] = {
    "2x-Bubble-AnimeScale-SwinIR-Small-v1": (
        "anime-bubble-x2", "anime", "2x_Bubble_AnimeScale_SwinIR_Small_v1.pth",
        f"{BUBBLE}/2x_Bubble_AnimeScale_SwinIR_Small_v1/2x_Bubble_AnimeScale_SwinIR_Small_v1.pth",
    ),
    "2x-HFA2SwinIR-S": ("anime-hfa2k-x2", "anime", "2xHFA2kSwinIR-S.pth", None),
    "2x-LexicaSwinIR": (
        "generated-lexica-x2", "generated", "2xLexicaSwinIR.pth", f"{PHHOFM}/2xLexicaSwinIR/2xLexicaSwinIR.pth",
    ),
    "4x-HFA2kLUDVAESwinIR-light": (
        "anime-real-hfa2k-x4", "anime", "4xHFA2kLUDVAESwinIR_light.pth",
        f"{PHHOFM}/4xHFA2kLUDVAESwinIR_light/4xHFA2kLUDVAESwinIR_light.pth",
    ),
    "4x-SwinIR-M-Pretrain": (
        "pretrain-medium-x4", "pretrain", "4x-SwinIR-M_Pretrain.pth",
        f"{KIM2091}/4x-SwinIR-M_Pretrain/4x-SwinIR-M_Pretrain.pth",
    ),
    "4x-SwinIR-S-Pretrain": (
        "pretrain-small-x4", "pretrain", "4x-SwinIR-S_Pretrain.pth",
        f"{KIM2091}/4x-SwinIR-S_Pretrain/4x-SwinIR-S_Pretrain.pth",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFile:
    """A file others published. ``size_bytes`` and ``sha256`` are None where no public record of them was found.

    ``url`` is None where the file can be had by a person only, from ``page``; ``state_key`` where the file has to say.
    """

    file: str
    url: str | None
    size_bytes: int | None
    sha256: str | None
    licence: str
    state_key: str | None = None
    page: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A model a user can name. ``config`` is None where only the file says what network it is, and for the baselines."""

    name: str
    task: str
    scale: int
    config: SwinIRConfig | None = None
    published: PublishedFile | None = None

    @property
    def weightless(self) -> bool:
        """Whether it is a baseline, which computes without weights."""
        return self.config is None and self.published is None


def preset(name: str) -> Preset:
    """The preset of that name. Raises ValueError, with the nearest name, where there is none."""
    found = PRESETS.get(name)
    if found is None:
        close = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"unknown model {name!r}; {hint}`swinir models` lists all {len(PRESETS)}")
    return found


def presets_of(config: SwinIRConfig) -> list[str]:
    """The names of the presets with this architecture; several where only the training differs."""
    return [name for name, known in PRESETS.items() if known.config == config]


def baseline(name: str) -> nn.Module:
    """The module of a weightless preset: (N, C, H, W) floating point in, the same type out, ``scale`` times larger."""
    kind, _, scale = name.partition("-x")
    match kind:
        case "identity":
            return nn.Identity()
        case "nearest":
            return Nearest(int(scale))
        case "bicubic":
            return Bicubic(int(scale))
    raise ValueError(f"{name!r} is not a weightless model")


class Nearest(nn.Module):
    """Every pixel repeated ``scale`` times each way, exactly."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(self.scale, dim=-2).repeat_interleave(self.scale, dim=-1)


class Bicubic(nn.Module):
    """MATLAB-exact bicubic enlargement, not rounded."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return resize(x, self.scale)


def published_config(task: str, variant: str, scale: int) -> SwinIRConfig:
    """The architecture of a row of the model zoo (the paper's section 4.1, and the released options)."""
    groups, dim, heads = {"S": (4, 60, 6), "M": (6, 180, 6), "L": (9, 240, 8)}[variant]
    upsamplers: dict[str, Upsampler] = {
        "classical": "pixelshuffle",
        "lightweight": "pixelshuffledirect",
        "real": "nearest+conv",
        "real_large": "nearest+conv",
    }
    jpeg = task.endswith("_jpeg")
    return SwinIRConfig(
        upscale=scale,
        in_chans=1 if task.startswith("gray_") else 3,
        depths=(6,) * groups,
        embed_dim=dim,
        num_heads=(heads,) * groups,
        window_size=7 if jpeg else 8,  # JPEG's own blocks are 8 wide; 7 cannot lock onto them
        mlp_ratio=2.0,
        img_range=255.0 if jpeg else 1.0,
        upsampler=upsamplers.get(task, ""),
        resi_connection="3conv" if variant == "L" else "1conv",
    )


def _published_name(row: Mapping[str, Any]) -> str:
    match row["task"]:
        case "classical":
            return f"classical-x{row['scale']}" if row["trained_on"] == "DF2K" else f"classical-div2k-x{row['scale']}"
        case "real":
            return f"real-psnr-x{row['scale']}" if "_PSNR" in row["file"] else f"real-x{row['scale']}"
        case "real_large":
            return f"real-large-x{row['scale']}"
        case "gray_dn" | "color_dn":
            return f"denoise-{row['task'].removesuffix('_dn')}-{row['noise']}"
        case "gray_jpeg" | "color_jpeg":
            return f"jpeg-{row['task'].removesuffix('_jpeg')}-{row['jpeg']}"
        case task:
            return f"{task}-x{row['scale']}"


def _published_presets() -> list[Preset]:
    return [
        Preset(
            name=_published_name(row),
            task=row["task"],
            scale=row["scale"],
            config=published_config(row["task"], row["variant"], row["scale"]),
            published=PublishedFile(
                file=row["file"],
                url=row["url"],
                size_bytes=row["size"],
                sha256=row["sha256"],
                licence=row["licence"],
                state_key=row["state_key"],
            ),
        )
        for row in json.loads(MODEL_ZOO.read_text())["official"]
    ]


def _community_presets() -> list[Preset]:
    return [
        Preset(
            name=name,
            task=task,
            scale=row["scale"],
            published=PublishedFile(
                file=file,
                url=url,
                size_bytes=row["size"],
                sha256=row["sha256"],
                licence=row["licence"],
                page=f"https://openmodeldb.info/models/{row['name']}",
            ),
        )
        for row in json.loads(MODEL_ZOO.read_text())["community"]
        for name, task, file, url in [COMMUNITY[row["name"]]]
    ]


def _own_presets() -> list[Preset]:
    """Trained for this project, and nowhere else to be had."""
    enlarging = [
        Preset(name=f"real-light-x{scale}", task="real", scale=scale, config=published_config("lightweight", "S", scale))
        for scale in (2, 4)
    ]
    # The window is 8 for both: they began at the body of real-light-x2.
    cleaning = [
        Preset(name=f"{task}-light", task=task, scale=1, config=published_config("color_dn", "S", 1))
        for task in ("denoise", "jpeg")
    ]
    return [*enlarging, *cleaning]


def _baseline_presets() -> list[Preset]:
    enlarging = [Preset(name=f"{kind}-x{n}", task="baseline", scale=n) for kind in ("nearest", "bicubic") for n in range(2, 9)]
    return [Preset(name="identity", task="baseline", scale=1), *enlarging]


PRESETS: Mapping[str, Preset] = {
    known.name: known for known in [*_published_presets(), *_own_presets(), *_community_presets(), *_baseline_presets()]
}
