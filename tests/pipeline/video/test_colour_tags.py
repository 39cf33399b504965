"""Facts C4 and C5: what a stream says of its colours goes out as it came in, HDR10 metadata and chroma location too."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.config import VideoConfig
from pipeline.errors import MediaError
from pipeline.video.colours import choose_colours
from pipeline.video.frames import checksum, rows
from pipeline.video.hdr import content_light, encoder_params, mastering_display
from pipeline.video.header import Header, parse_description, read_header
from tests.media import decoded, write_video
from tests.pipeline.video.test_plan import an_info

# (range, matrix, primaries, transfer), H.273: BT.709, BT.601 of 525 and 625 lines, SMPTE 240M, sRGB and Display P3 pictures,
# BT.2020, PQ, HLG, BT.470M, YCgCo, nothing stated
TAGS = [
    (1, 1, 1, 1), (2, 1, 1, 1), (1, 6, 6, 6), (1, 5, 5, 6), (1, 7, 7, 7), (2, 5, 1, 13), (2, 1, 12, 13),
    (1, 9, 9, 14), (1, 9, 9, 16), (1, 9, 9, 18), (1, 4, 4, 4), (2, 8, 1, 13), (0, 2, 2, 2),
]  # fmt: skip
NAMES = ("color_range", "colorspace", "color_primaries", "color_trc")
CODECS = [("libx264", "mp4"), ("libx264", "mkv"), ("libx265", "mp4"), ("libx265", "mkv")]
CODECS += [("libsvtav1", "mp4"), ("libsvtav1", "mkv"), ("ffv1", "mkv")]

MASTERING = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
HDR10 = {"color_range": 1, "colorspace": 9, "color_primaries": 9, "color_trc": 16}


def tags_of(path: Path) -> set[tuple[int, ...]]:
    """What the frames say, or their stream where they say nothing."""
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        unstated = dict(zip(NAMES, (0, 2, 2, 2), strict=True))
        return {
            tuple(int(getattr(frame if getattr(frame, name) != unstated[name] else context, name)) for name in NAMES)
            for frame in container.decode(video=0)
        }


@pytest.mark.parametrize(("codec", "container"), CODECS)
def test_c4_colour_tags_out_are_colour_tags_in(tmp_path: Path, job, codec: str, container: str) -> None:
    for number, tags in enumerate(TAGS):
        source = write_video(tmp_path / f"{number}.mkv", 2, codec="ffv1", tags=dict(zip(NAMES, tags, strict=True)))
        out = tmp_path / f"{number}.out.{container}"
        job(source, out, codec=codec)
        # HEVC and AV1 state a range in any case, limited where nobody said otherwise.
        wanted = {tags, (tags[0] or 1, *tags[1:])}
        assert tags_of(out) <= wanted, tags


def test_c4_untagged_video_stays_untagged_unless_players_would_guess_otherwise(tmp_path: Path, job) -> None:
    small = write_video(tmp_path / "small.mkv", 2)
    large = write_video(tmp_path / "large.mkv", 2, size=(648, 486))
    assert job(small, tmp_path / "small.out.mp4")["encode"]["color_space"] == 2
    report = job(large, tmp_path / "large.out.mp4")
    assert {tags[1] for tags in tags_of(tmp_path / "large.out.mp4")} == {6}
    assert any("the result is tagged smpte170m" in guess for guess in report["guesses"])


def test_c4_tags_that_change_midway_are_refused_and_the_frame_named(tmp_path: Path, job) -> None:
    parts = [
        write_video(tmp_path / f"{matrix}.ts", 5, options={"g": "5", "bf": "0"}, tags={"colorspace": matrix, "color_range": 1})
        for matrix in (1, 6)
    ]
    source = tmp_path / "in.ts"
    with av.open(str(source), "w") as out:
        video = None
        for part, path in enumerate(parts):
            with av.open(str(path)) as container:
                stream = container.streams.video[0]
                video = video or out.add_stream_from_template(stream)
                for packet in container.demux(stream):
                    if packet.size:
                        packet.pts, packet.dts = packet.pts + part * 5 * 3600, packet.dts + part * 5 * 3600
                        packet.stream = video
                        out.mux(packet)
    with pytest.raises(MediaError, match=r"frame 5 at .* s changes the colour matrix from 1 to 6 .*; split the video there"):
        job(source, tmp_path / "out.mkv")


@pytest.mark.parametrize("code", [10, 14])
def test_matrices_that_are_not_linear_are_refused_with_advice(tmp_path: Path, job, code: int) -> None:
    source = write_video(tmp_path / "in.mkv", 2, codec="ffv1", tags={"colorspace": code})
    with pytest.raises(MediaError, match=rf"colour matrix {code} \(.*\) .* ffmpeg -i SOURCE -vf zscale=matrix=2020_ncl"):
        job(source, tmp_path / "out.mkv")


def location_of(path: Path) -> str:
    with av.open(str(path)) as container:
        return read_header(container, container.streams.video[0].index).chroma_location


@pytest.mark.parametrize(("codec", "container"), CODECS)
@pytest.mark.parametrize("location", ["left", "center", "topleft", "top"])
def test_the_chroma_location_goes_along(tmp_path: Path, job, codec: str, container: str, location: str) -> None:
    source = write_video(tmp_path / "in.mkv", 2, codec="ffv1", options={"chroma_sample_location": location})
    assert location_of(source) == location
    for model in ("nearest-x2", "bicubic-x2"):
        out = tmp_path / f"{model}.{container}"
        report = job(source, out, codec=codec, model=model)
        if codec == "libsvtav1" and location in ("center", "top"):
            # AV1 knows two places only. Chroma that is enlarged by repeating stays where it is, and that is said.
            moved = model == "bicubic-x2"
            assert location_of(out) == ("left" if moved else "unspecified")
            assert moved != any("cannot state that chroma lies" in guess for guess in report["guesses"])
        else:
            assert location_of(out) == location


def test_untold_chroma_location_stays_untold(tmp_path: Path, job) -> None:
    source = write_video(tmp_path / "in.mkv", 2, codec="ffv1")
    for codec in ("ffv1", "libsvtav1"):
        job(source, tmp_path / f"{codec}.mkv", codec=codec)
        assert location_of(tmp_path / f"{codec}.mkv") == "unspecified"


def test_ffmpegs_description_tells_location_and_dolby_vision() -> None:
    text = (
        "Input #0, mov, from '':\n  Stream #0:0[0x1](und): Audio: aac (LC), 44100 Hz\n"
        "  Stream #0:1[0x2](eng): Video: hevc (Main 10), 1 reference frame (hvc1 / 0x31637668), "
        "yuv420p10le(tv, bt2020nc/bt2020/smpte2084, topleft), 1920x1080 [SAR 1:1 DAR 16:9], 29.99 fps\n    Side data:\n"
        "      DOVI configuration record: version: 1.0, profile: 8, level: 6, rpu flag: 1, el flag: 0, bl flag: 1, "
        "compatibility id: 1, compression: 0\n  Stream #0:2: Video: h264 (High), yuv420p(progressive), 64x48, 25 fps\n"
    )
    assert parse_description(text, 1) == Header("topleft", (8, 1))
    assert parse_description(text, 2) == Header("unspecified", ())


def hdr10_clip(path: Path, codec: str, with_metadata: str) -> Path:
    name = {"libx265": "x265-params", "libx264": "x264-params", "libsvtav1": "svtav1-params"}[codec]
    return write_video(path, 3, codec=codec, pix_fmt="yuv420p10le", options={name: with_metadata}, tags=HDR10)


def hdr10_of(path: Path) -> tuple[tuple[Fraction, ...], tuple[int, ...]]:
    with av.open(str(path)) as container:
        entries = list(next(container.decode(video=0)).side_data)
    return tuple(map(Fraction, mastering_display(entries))), content_light(entries)


@pytest.mark.parametrize("container", ["mp4", "mkv"])
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_c5_hdr10_metadata_comes_out_as_identical_rationals(tmp_path: Path, job, codec: str, container: str) -> None:
    source = hdr10_clip(tmp_path / "in.mp4", "libx265", f"master-display={MASTERING}:max-cll=1000,400:log-level=error")
    before = hdr10_of(source)
    assert before[0][0] == Fraction(34000, 50000)
    assert before[1] == (1000, 400)

    report = job(source, tmp_path / f"out.{container}", codec=codec, model="identity")

    assert hdr10_of(tmp_path / f"out.{container}") == before
    assert tags_of(tmp_path / f"out.{container}") == {(1, 9, 9, 16)}
    assert decoded(tmp_path / f"out.{container}")[0].format.name == "yuv420p10le"
    assert not report["warnings"]


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_c5_hdr10_metadata_of_av1_comes_out_as_identical_rationals(tmp_path: Path, job, container: str) -> None:
    given = "mastering-display=G(0.265,0.69)B(0.15,0.06)R(0.68,0.32)WP(0.3127,0.329)L(1000.0,0.005):content-light=1000,400"
    source = hdr10_clip(tmp_path / "in.mp4", "libsvtav1", given)
    before = hdr10_of(source)
    assert len(before[0]) == 10
    job(source, tmp_path / f"out.{container}", codec="libsvtav1", model="identity")
    assert hdr10_of(tmp_path / f"out.{container}") == before


def test_c5_10_bit_codes_of_an_hdr10_clip_are_exact_and_what_ffv1_cannot_carry_is_said(tmp_path: Path, job) -> None:
    source = hdr10_clip(tmp_path / "in.mp4", "libx265", f"master-display={MASTERING}:log-level=error")
    report = job(source, tmp_path / "out.mkv", codec="ffv1", model="identity")
    for before, after in zip(decoded(source), decoded(tmp_path / "out.mkv"), strict=True):
        assert all(np.array_equal(rows(a, 2), rows(b, 2)) for a, b in zip(before.planes, after.planes, strict=True))
    assert any("ffv1 cannot carry HDR10" in line for line in report["warnings"])


def test_a_mastering_display_in_another_codecs_units_is_rounded_to_the_nearest() -> None:
    mastering = ("34000/50000",) * 8 + ("50/10000", "10000000/10000")
    assert encoder_params("libx265", mastering, ()).startswith(":master-display=G(34000,34000)")
    assert f"G({round(Fraction(34000, 50000) * 65536) / 65536:.9f}," in encoder_params("libsvtav1", mastering, ())
    assert encoder_params("ffv1", mastering, (1, 1)) == ""


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1", "ffv1"])
def test_10_bit_in_is_10_bit_out(tmp_path: Path, job, codec: str) -> None:
    source = write_video(tmp_path / "in.mkv", 2, codec="ffv1", pix_fmt="yuv420p10le")
    job(source, tmp_path / "out.mkv", codec=codec)
    assert decoded(tmp_path / "out.mkv")[0].format.name == "yuv420p10le"


def test_depth_that_is_asked_away_is_dithered_and_keeps_its_mean(tmp_path: Path, job) -> None:
    """A level between two 8-bit codes: plain rounding would move it, and draw bands into slopes."""
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as out:
        video = out.add_stream("ffv1", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "gray10le"
        for _ in range(2):
            frame = av.VideoFrame(64, 48, "gray10le")
            rows(frame.planes[0], 2)[:] = np.full((48, 64), 401, np.uint16).view(np.uint8)  # 100.25 of 8 bits
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    job(source, tmp_path / "out.mkv", codec="ffv1", model="identity", pix_fmt="gray")
    first, second = (rows(frame.planes[0], 1).copy() for frame in decoded(tmp_path / "out.mkv"))
    assert {100, 101} == set(np.unique(first).tolist())
    assert first.mean() == pytest.approx(100.25, abs=0.02)
    assert not np.array_equal(first, second)


def test_the_dither_of_a_frame_is_the_same_whatever_segment_it_is_in(tmp_path: Path, job) -> None:
    source = write_video(tmp_path / "in.mkv", 60, codec="ffv1", pix_fmt="yuv420p10le")
    for seconds in (1, 3):
        job(source, tmp_path / f"{seconds}.mkv", codec="ffv1", pix_fmt="yuv420p", segment_seconds=seconds)
    one, other = (decoded(tmp_path / f"{seconds}.mkv") for seconds in (1, 3))
    assert [checksum(frame) for frame in one] == [checksum(frame) for frame in other]


@pytest.mark.parametrize(
    ("model", "changes", "in_place", "sites", "kept"),
    [
        ("lightweight-x2", {}, False, (0.0, 0.5), False),  # H.264's own place
        ("denoise-color-15", {}, True, (0.0, 0.5), True),
        ("denoise-color-15", {"chroma_location": "topleft"}, True, (0.0, 0.0), True),
        ("denoise-color-15", {"pix_fmt": "yuvj420p"}, True, (0.5, 0.5), True),  # as JPEG has it
        ("bicubic-x2", {"pix_fmt": "yuv422p"}, False, (0.0, None), False),
        ("nearest-x2", {}, False, (None, None), False),  # repeats, and so does chroma
        ("identity", {}, True, (None, None), True),
    ],
)
def test_chroma_is_enlarged_and_reduced_from_the_same_places(
    model: str, changes: dict[str, str], in_place: bool, sites: tuple[float | None, ...], kept: bool
) -> None:
    info, config = an_info(**changes), VideoConfig(model=model)
    colours = choose_colours(info, config, info.width * 2, info.height * 2, in_place, [])
    for layout in (colours.source, colours.target):
        assert (layout.site_x, layout.site_y) == sites
    assert colours.target.chroma_kept == kept
