"""What is known of a video stream and its file, as plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.video.combing import Interlacing
from pipeline.video.header import UNSTATED
from pipeline.video.times import TimeRepairs


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """One video stream and its file, as plain values; ``time_base`` and ``rate`` as "num/den" strings."""

    container: str
    stream: int
    codec: str
    width: int
    height: int
    pix_fmt: str
    time_base: str
    rate: str
    sample_aspect_ratio: str | None
    display_matrix: tuple[int, ...] | None
    color_range: int
    color_space: int
    color_primaries: int
    color_trc: int
    num_frames: int
    duration_s: float
    corner: tuple[int, ...] = (0, 0)  # x and y in a frame where the picture begins that is shown
    interlacing: Interlacing = field(default_factory=Interlacing)
    time_repairs: TimeRepairs = field(default_factory=TimeRepairs)
    chroma_location: str = UNSTATED
    transparent: bool = False  # in some pixel of some frame
    mastering_display: tuple[str, ...] = ()  # as hdr.mastering_display
    content_light: tuple[int, ...] = ()
    side_data: tuple[str, ...] = ()  # FFmpeg's names of what frames carry besides their picture
    damage: tuple[str, ...] = ()
    guesses: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return values | {"time_repairs": self.time_repairs.to_json()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> VideoInfo:
        fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
        fields["time_repairs"] = TimeRepairs.from_json(fields["time_repairs"])
        return cls(**fields | {"interlacing": Interlacing(**fields["interlacing"])})
