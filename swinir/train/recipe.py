"""What a training run depends on, and the learning rate that follows from it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

from swinir.model import SwinIRConfig
from swinir.train.degrade import Degradation

WHOLE = {
    "steps": 1, "batch_size": 1, "patch": 1, "warmup_steps": 0, "synthetic_pictures": 0, "crops": 1, "pictures_at_once": 1,
    "renew_steps": 1, "seed": 0,
}  # fmt: skip
"""The settings that count something, and the least of each."""
NUMBERS = {
    "learning_rate": (0, math.inf), "ema_decay": (0, 1), "gradient_clip": (0, math.inf), "synthetic_share": (0, 1),
    "plain_weight": (0, math.inf),
}  # fmt: skip
"""Settings that measure something, and between what each must lie; the greater number is none of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """What a training run depends on; another value of any but ``precision`` and ``compile`` is another run."""

    model: SwinIRConfig
    steps: int = 5000
    batch_size: int = 14
    patch: int = 24  # LR pixels
    optimizer: str = "adam"  # the paper's; or muon, for the matrices
    learning_rate: float = 1e-3
    warmup_steps: int = 30
    schedule: str = "cosine"  # or multistep: halved at each milestone
    milestones: tuple[float, ...] = (0.5, 0.8, 0.9, 0.95)  # of the steps; the paper's
    ema_decay: float = 0.995
    gradient_clip: float | None = 1.0  # the gradient's norm; the paper clips none
    synthetic_pictures: int = 12
    synthetic_share: float = 0.05  # of the patches; more than a little costs photographs their quality
    degradation: Degradation | None = None  # None: exact bicubic reduction
    crops: int = 8  # of every picture, where pictures are degraded
    pictures_at_once: int | None = None  # photographs that patches are cut from at a time; None: all, for the whole run
    renew_steps: int = 1000  # until others take their place, which meanwhile are made ready
    seed: int = 0
    precision: str = "bf16"  # or fp32
    compile: bool = False  # the blocks, by PyTorch's compiler: half a minute first; on a CPU in place of our faster kernel
    loss: str = "l1"  # the paper's; or l2, which is ahead for the first few hundred steps
    plain_weight: float = 0.0  # of the mean absolute error on plain colours, added; without it networks move some

    def __post_init__(self) -> None:
        parts = self.milestones if isinstance(self.milestones, Sequence) else [None]
        if not all(isinstance(part, float) and 0 < part < 1 for part in parts):
            raise ValueError(f"milestones must be a list of parts of the run between 0 and 1, got {self.milestones!r}")
        object.__setattr__(self, "milestones", tuple(self.milestones))  # YAML and JSON have lists
        if isinstance(self.degradation, Mapping):
            object.__setattr__(self, "degradation", Degradation(**self.degradation))
        if not isinstance(self.degradation, Degradation | None):
            raise ValueError(f"degradation must be settings with their values, got {self.degradation!r}")
        for name, (least, limit) in NUMBERS.items():
            object.__setattr__(self, name, number(name, getattr(self, name)))
            value = getattr(self, name)
            if value is not None and not least <= value < limit:
                raise ValueError(f"{name} must be {least} or more, and less than {limit:g}, got {value:g}")
        if self.learning_rate == 0 or self.gradient_clip == 0:
            raise ValueError("learning_rate and gradient_clip must be more than 0; null clips nothing")
        if not isinstance(self.compile, bool):
            raise ValueError(f"compile must be true or false, got {self.compile!r}")
        if self.schedule not in ("cosine", "multistep"):
            raise ValueError(f"schedule must be cosine or multistep, got {self.schedule!r}")
        if self.optimizer not in ("adam", "muon"):
            raise ValueError(f"optimizer must be adam or muon, got {self.optimizer!r}")
        if self.loss not in ("l1", "l2"):
            raise ValueError(f"loss must be l1 or l2, got {self.loss!r}")
        for name, least in WHOLE.items():
            value = getattr(self, name)
            if not ((type(value) is int and value >= least) or (value is None and name == "pictures_at_once")):
                raise ValueError(f"{name} must be a whole number of {least} or more, got {value!r}")
        if self.precision not in ("bf16", "fp32"):
            raise ValueError(f"precision must be bf16 or fp32, got {self.precision!r}")


def number(name: str, value: object) -> float | None:
    """A setting as a number; YAML takes ``1e-3``, without a point, for text."""
    if value is None and name == "gradient_clip":
        return None
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a number, got {value!r}") from error


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then half a cosine down to a hundredth, or half as much after each milestone."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "multistep":
        return config.learning_rate * 0.5 ** sum(step >= round(part * config.steps) for part in config.milestones)
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def same_run(state: str, config: TrainConfig) -> bool:
    """Whether a state's JSON of its TrainConfig is of this run; a setting that is newer than the state has its default.

    How the machine at hand computes the steps makes no other run: one may be begun on a CPU and go on on a GPU.
    """
    defaults = {field.name: field.default for field in fields(TrainConfig) if field.name != "model"}
    machine = {"precision": None, "compile": None}
    theirs, ours = defaults | json.loads(state) | machine, asdict(config) | machine
    return bool(json.loads(json.dumps(theirs)) == json.loads(json.dumps(ours)))
