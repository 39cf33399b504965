"""A media file in plain values, as it is compared with another."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from pipeline.video.labels import title_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What the decoded frames of a video stream look like. Colour is in code points of ITU-T H.273, 2 for unspecified.

    ``mastering`` is x, y of R, G, B and white, then least and greatest luminance in cd/m2; ``light`` is MaxCLL, MaxFALL.
    ``formats`` are all (width, height, pixel format) that occur; the first is ``width`` and so on.
    """

    width: int
    height: int
    pix_fmt: str
    depth: int
    chroma: tuple[int, int]  # log2 of the subsampling across and down
    kind: str  # "yuv", "gray" or "rgb"
    alpha: bool
    rate: Fraction | None
    sample_aspect_ratio: Fraction | None
    display_matrix: tuple[int, ...] | None
    color_range: int
    color_space: int
    color_primaries: int
    color_trc: int
    chroma_location: str  # a name of FFmpeg's, or header.UNSTATED
    mastering: tuple[Fraction, ...] | None
    light: tuple[int, ...] | None
    dynamic_hdr: tuple[str, ...]
    num_interlaced: int
    formats: tuple[tuple[int, int, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamDescription:
    """One stream; times in ticks of ``time_base``, ``hashes`` of the packets' payloads in file order.

    ``shown`` are the times of decoded frames: of every one of a video, of the first of sound. ``end`` is where the last ends.
    """

    index: int
    type: str  # video, cover, audio, subtitle, attachment, data, unknown
    codec: str
    time_base: Fraction
    tags: dict[str, str]
    disposition: tuple[str, ...]
    picture: Picture | None = None
    shown: tuple[int, ...] = ()
    end: int | None = None
    sample_rate: int | None = None
    layout: str | None = None
    num_samples: int = 0
    skipped_samples: tuple[int, int] = (0, 0)  # at the start and at the end
    packet_pts: tuple[int, ...] = ()
    hashes: tuple[int, ...] = ()

    @property
    def language(self) -> str:
        return self.tag("language") or "und"

    @property
    def title(self) -> str | None:
        return title_of(self.tags)

    def tag(self, name: str) -> str | None:
        """A tag by its name, in whatever case the container keeps it."""
        return next((value for key, value in self.tags.items() if key.lower() == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """One file. ``damage`` says what could not be read or decoded, ``notes`` what of it had to be guessed here."""

    name: str
    container: str
    duration: Fraction | None  # seconds, as the file declares it
    tags: dict[str, str]
    chapters: tuple[tuple[Fraction, Fraction, str], ...]  # start and end in seconds, title
    streams: tuple[StreamDescription, ...]
    damage: tuple[str, ...]
    notes: tuple[str, ...]
