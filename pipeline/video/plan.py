"""Decide, from what a video holds and what was asked, where it is cut and how it is encoded; pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from pipeline.config import PICTURE_CODECS, VideoConfig
from pipeline.units import Unit, digest
from pipeline.video.colours import choose_colours
from pipeline.video.cuts import KEY_FRAME_DISTANCE, plan_segments
from pipeline.video.fields import Deinterlace, deinterlacing, pictures
from pipeline.video.hdr import encoder_params, losses
from pipeline.video.header import UNSTATED
from pipeline.video.info import VideoInfo
from pipeline.video.size import OutputSize, output_size
from pipeline.video.timeline import Timeline
from pipeline.video.turn import Matrix, Turn, on_its_side, orientation, turn_of
from swinir.colour import PlaneLayout

FORMAT_VERSION = 4  # of probes, segment files and their records; another one shares nothing with this


@dataclass(frozen=True, slots=True)
class EncodeSpec:
    """All that the bytes of an encoded segment depend on, besides its pixels and their times."""

    codec: str
    pix_fmt: str
    width: int
    height: int
    time_base: str
    rate: str
    sample_aspect_ratio: str | None
    color_range: int
    color_space: int
    color_primaries: int
    color_trc: int
    crf: float | None
    preset: str | None
    threads: int
    global_header: bool
    chroma_location: str = UNSTATED
    display_matrix: Matrix | None = None  # stated beside the encoded stream
    turn: Turn | None = None  # applied to the pixels, where the result cannot hold a display matrix
    hdr: str = ""  # HDR10 metadata as the encoder's own parameters, ":name=value" each


@dataclass(frozen=True, slots=True)
class VideoPlan:
    """What the job will do: the layouts pixels are converted by, the encoder, the segments."""

    source_layout: PlaneLayout
    target_layout: PlaneLayout
    encode: EncodeSpec
    segments: tuple[tuple[int, int], ...]  # half-open ranges of the pictures that are upscaled
    guesses: tuple[str, ...]
    deinterlace: Deinterlace | None = None
    warnings: tuple[str, ...] = ()  # what of the source the result will not have

    def identity(self, source: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
        """Everything that changes a byte of the result, as plain JSON data."""
        return {
            "format_version": FORMAT_VERSION,
            "source": source,
            "model": model,
            "encode": asdict(self.encode),
            "layouts": [asdict(self.source_layout), asdict(self.target_layout)],
            "deinterlace": asdict(self.deinterlace) if self.deinterlace else None,
            "segments": digest([list(s) for s in self.segments]),
        }

    def units(self, identity: dict[str, Any]) -> list[Unit]:
        run = digest(identity)
        return [
            Unit(digest([run, start, stop]), stop - start, {"index": index, "start": start, "stop": stop})
            for index, (start, stop) in enumerate(self.segments)
        ]


def plan_video(
    info: VideoInfo,
    timeline: Timeline,
    scale: int,
    config: VideoConfig,
    global_header: bool,
    container_format: str = "mp4",
) -> VideoPlan:
    """The plan for one probed video. Raises ConfigError or MediaError where the request cannot be met."""
    guesses = list(info.guesses)
    deinterlace = deinterlacing(info.interlacing, len(timeline), config.deinterlace, guesses)
    per_frame = deinterlace.per_frame if deinterlace else 1
    turned = on_its_side(turn_of(info.display_matrix))
    source_size = OutputSize(info.width, info.height, info.sample_aspect_ratio)
    width, height, pixel_shape = output_size(source_size, scale, config, turned, guesses)
    if config.codec in PICTURE_CODECS:
        display_matrix, turn = orientation(info.display_matrix, config.codec, Fraction(width, info.width))
    else:
        display_matrix, turn = orientation(info.display_matrix, container_format, Fraction(width, info.width))
        if turn:
            guesses.append(f"{container_format} holds no display matrix; the pictures themselves are turned")
    if on_its_side(turn):
        width, height = height, width
        pixel_shape = str(1 / Fraction(pixel_shape)) if pixel_shape else None
    in_place = turn is None and (width, height) == (info.width, info.height)
    colours = choose_colours(info, config, width, height, in_place, guesses)
    encode = EncodeSpec(
        codec=config.codec,
        pix_fmt=colours.pix_fmt,
        width=width,
        height=height,
        time_base=str(Fraction(info.time_base) / per_frame),
        rate=str(Fraction(info.rate) * per_frame),
        sample_aspect_ratio=pixel_shape,
        color_range=colours.color_range,
        color_space=colours.color_space,
        color_primaries=info.color_primaries,
        color_trc=info.color_trc,
        crf=config.crf,
        preset=config.preset,
        threads=config.encoder_threads,
        global_header=global_header,
        chroma_location=colours.chroma_location,
        display_matrix=display_matrix,
        turn=turn,
        hdr=encoder_params(config.codec, info.mastering_display, info.content_light),
    )
    seconds = config.segment_seconds
    longest = KEY_FRAME_DISTANCE if seconds is None else max(1, round(seconds * Fraction(encode.rate)))
    shown = pictures(timeline, deinterlace)
    scenes, keys = shown.scene.nonzero()[0].tolist(), shown.key.nonzero()[0].tolist()
    segments = plan_segments(len(shown), scenes, keys, longest, (~shown.repeated).tolist())
    warnings = losses(info.side_data, config.codec, info.mastering_display, info.content_light)
    if info.transparent and not colours.target.alpha:
        warnings.append(f"{config.codec} cannot hold transparency; it is dropped (--codec ffv1 and .mkv keep it)")
    return VideoPlan(colours.source, colours.target, encode, tuple(segments), tuple(guesses), deinterlace, tuple(warnings))
