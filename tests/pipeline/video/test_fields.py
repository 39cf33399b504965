"""C7: interlaced and telecined video is recognised by what it shows, refused with advice, or made whole by bwdif."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.errors import MediaError
from pipeline.video.combing import EVERY, CombMeter, Interlacing, woven
from pipeline.video.fields import Deinterlace, deinterlaced, deinterlacing, frames_needed, pictures
from pipeline.video.frames import layout_of, rows
from pipeline.video.probe import open_media, probe
from pipeline.video.reader import decode, read_range
from tests.media import decoded
from tests.pipeline.video.test_plan import a_timeline

SIZE = (96, 64)
TICK = Fraction(1, 50)


def moment(time: float) -> np.ndarray:
    """(64, 96) uint8 luma that moves steadily across."""
    y, x = np.mgrid[0 : SIZE[1], 0 : SIZE[0]]
    wave = np.sin((x - 9 * time) / 4 + np.sin(y / 9)) + 0.5 * np.sin((x - 9 * time) / 2.3)
    return (128 + 60 * wave).astype(np.uint8)


def frame_of(index: int, kind: str) -> np.ndarray:
    """Frame ``index`` of a moving picture: "whole", or woven of two moments, "tff" or "bff"."""
    if kind == "whole":
        return moment(index)
    first, second = moment(index), moment(index + 0.5)
    luma = first.copy()
    luma[1 if kind == "tff" else 0 :: 2] = second[1 if kind == "tff" else 0 :: 2]
    return luma


def stating(frame: av.VideoFrame, field: str) -> av.VideoFrame:
    """The frame, saying that it is interlaced, "tff" or "bff", or "prog" that it is not."""
    graph = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=TICK)
    setter, sink = graph.add("setfield", field), graph.add("buffersink")
    source.link_to(setter)
    setter.link_to(sink)
    graph.configure()
    graph.push(frame)
    return graph.pull()


def write_frames(
    path: Path, kinds: list[str], states: list[str], codec: str = "ffv1", options: dict[str, str] | None = None,
    pix_fmt: str = "yuv420p", pts: list[int] | None = None,
) -> Path:  # fmt: skip
    """A video at 25 frames a second whose frames are as ``kinds`` says and state what ``states`` says."""
    with av.open(str(path), "w") as out:
        video = out.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt, video.options = *SIZE, pix_fmt, options or {}
        video.codec_context.time_base = TICK
        for index, (kind, state) in enumerate(zip(kinds, states, strict=True)):
            frame = av.VideoFrame.from_ndarray(frame_of(index, kind), "gray").reformat(format=pix_fmt)
            frame.pts, frame.time_base = pts[index] if pts else 2 * index, TICK
            frame = stating(frame, state)
            frame.pict_type = 0
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return path


def samples(frame: av.VideoFrame) -> list[np.ndarray]:
    wide = 2 if max(component.bits for component in frame.format.components) > 8 else 1
    return [rows(plane, wide).copy() for plane in frame.planes]


# What frames show.


def verdicts(frames: list[np.ndarray]) -> set[str]:
    return {woven(a.astype(np.int16), b.astype(np.int16)) for a, b in itertools.pairwise(frames)}


@pytest.mark.parametrize(("kind", "verdict"), [("whole", "whole"), ("tff", "top first"), ("bff", "bottom first")])
def test_c7_fields_and_their_order_are_seen_in_the_picture(kind: str, verdict: str) -> None:
    assert verdicts([frame_of(index, kind) for index in range(12)]) == {verdict}


def test_c7_what_stands_still_is_never_taken_for_fields() -> None:
    stripes = np.zeros((64, 96), np.uint8)
    stripes[::2] = 255
    checks = np.indices((64, 96)).sum(axis=0) % 2 * 255
    noise = [np.random.default_rng(seed).normal(128, 40, (128, 96)).clip(0, 255).astype(np.uint8) for seed in range(20)]
    blinking = [np.full((64, 96), value, np.uint8) for value in (0, 255, 0, 90)]
    for still in (stripes, checks, moment(0), np.zeros((64, 96), np.uint8)):
        assert verdicts([still] * 3) == {"unclear"}
    assert verdicts(noise) == {"unclear"}
    assert verdicts(blinking) <= {"unclear", "whole"}


def test_c7_a_lettered_page_that_scrolls_is_whole_at_any_speed() -> None:
    from PIL import Image, ImageDraw, ImageFont

    page = Image.new("L", (96, 400))
    ImageDraw.Draw(page).multiline_text(
        (2, 2), "\n".join(["Directed by", "ABCDEFGHIJ"] * 12), 255, ImageFont.load_default(size=14)
    )
    for speed in range(1, 9):
        assert verdicts([np.asarray(page)[speed * i : speed * i + 64] for i in range(12)]) <= {"whole", "unclear"}


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p10le", "gray", "gbrp", "nv12", "uyvy422", "rgb24"])
def test_c7_fields_are_seen_in_every_kind_of_pixel_format(pix_fmt: str) -> None:
    meter = CombMeter()
    for index in range(3 * EVERY):
        meter.add(av.VideoFrame.from_ndarray(frame_of(index, "tff"), "gray").reformat(format=pix_fmt))
    assert meter.seen == Interlacing(combed=3)


def test_c7_no_real_progressive_video_looks_interlaced(shared: Path) -> None:
    """Soft telecine has whole frames; fullrange_bt709.mp4 is one that FFmpeg's own detector, idet, takes for fields."""
    for name in ("telecine_soft_mpeg2_480_ac3.mkv", "fullrange_bt709.mp4", "h264_10bit_200x200.mp4", "vfr_aac_640x480.mov",
                 "trunc_derived_a.mp4", "odd_dims_161x121_vp9.webm", "gif_vfr_transparent.gif"):  # fmt: skip
        meter = CombMeter()
        with open_media(str(shared / "data/video" / name), name) as container:
            for frame in decode(container, container.streams.video[0]):
                meter.add(frame)
        assert meter.seen.combed == 0, name
        assert meter.seen.whole > 3, name


# What is done about it.

SEEN = {
    "whole": Interlacing(whole=60),
    "stated and combed": Interlacing(flagged=100, flagged_combed=30),
    "stated, but whole pictures": Interlacing(flagged=100, flagged_whole=30),
    "combed in secret": Interlacing(combed=30, bottom_first=30),
    "hard telecine": Interlacing(combed=12, whole=18),
    "a few measured wrongly": Interlacing(combed=2, whole=28),
    "partly stated": Interlacing(flagged=40, flagged_combed=12, whole=18),
}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("stated and combed", "interlaced: 100 of 100 frames say so"),
        ("stated, but whole pictures", "100 of 100 frames say .* 30 of 30 are whole pictures"),
        ("combed in secret", "no frame says so: 30 of 30 sampled"),
        ("hard telecine", "no frame says so: 12 of 30 sampled"),
        ("partly stated", "interlaced: 40 of 100 frames say so"),
    ],
)
def test_c7_interlaced_video_is_stopped_with_the_options_to_choose_from(name: str, said: str) -> None:
    with pytest.raises(MediaError, match=said + ".*--deinterlace bwdif makes .* bwdif-fields .* progressive takes"):
        deinterlacing(SEEN[name], 100, None, [])
    assert deinterlacing(SEEN[name], 100, "progressive", []) is None


def test_c7_what_bwdif_is_told_follows_from_what_was_seen() -> None:
    assert deinterlacing(SEEN["whole"], 100, None, []) is None
    assert deinterlacing(SEEN["a few measured wrongly"], 100, None, []) is None
    assert deinterlacing(SEEN["stated and combed"], 100, "bwdif", []) == Deinterlace(1, every=False, parity="auto")
    assert deinterlacing(SEEN["stated and combed"], 100, "bwdif-fields", []) == Deinterlace(2, every=False, parity="auto")
    assert deinterlacing(SEEN["combed in secret"], 100, "bwdif", []) == Deinterlace(1, every=True, parity="bff")
    notes: list[str] = []
    assert deinterlacing(SEEN["partly stated"], 100, "bwdif", notes) == Deinterlace(1, every=False, parity="auto")
    assert deinterlacing(SEEN["whole"], 100, "bwdif", notes) is None
    assert notes == [
        "40 of 100 frames are interlaced; the others are taken as they are",
        "no frame is interlaced; --deinterlace has nothing to do",
    ]


def test_c7_the_second_field_is_shown_exactly_in_the_middle() -> None:
    timeline = replace(a_timeline(3), pts=np.array([5, 38, 72]), duration=np.array([33, 34, 33]))
    doubled = pictures(timeline, Deinterlace(2, every=True, parity="tff"))
    assert doubled.pts.tolist() == [10, 43, 76, 110, 144, 177]
    assert doubled.duration.tolist() == [33, 33, 34, 34, 33, 33]
    assert doubled.key.tolist() == [True, False, False, False, False, False]
    assert pictures(timeline, Deinterlace(1, every=True, parity="tff")) is timeline


# Segments.

OPTIONS = {"libx264": {"x264-params": "tff=1", "g": "9", "bf": "2"}, "ffv1": {}}
STATES = {"all": ["tff"] * 40, "some": ["prog"] * 7 + ["tff"] * 20 + ["prog"] * 5 + ["bff"] * 8}


@pytest.mark.parametrize("per_frame", [1, 2])
@pytest.mark.parametrize(
    ("codec", "states", "every"), [("libx264", "all", False), ("ffv1", "some", False), ("ffv1", "some", True)]
)
def test_c7_any_segment_gives_exactly_the_pictures_of_a_sequential_run(
    tmp_path: Path, codec: str, states: str, every: bool, per_frame: int
) -> None:
    kinds = ["whole" if state == "prog" else state for state in STATES[states]]
    source = write_frames(tmp_path / "in.mkv", kinds, STATES[states], codec, OPTIONS[codec])
    info, timeline = probe(str(source), "in.mkv")
    how = Deinterlace(per_frame, every, "tff" if every else "auto")

    @contextmanager
    def open_input() -> Iterator[str]:
        yield str(source)

    layout = layout_of(info.pix_fmt, "bt709", full_range=False)
    whole = list(read_range(open_input, "in.mkv", info, timeline, layout, 0, 40 * per_frame, how))
    assert [number for number, _ in whole] == list(range(40 * per_frame))
    direct = filtered_by_ffmpeg(source, per_frame, "all" if every else "interlaced")
    if states == "all" or every:  # FFmpeg leaves the second picture of frames out that it does not touch
        for (_, planes), picture in zip(whole, direct, strict=True):
            for plane, expected in zip(planes, samples(picture), strict=True):
                assert np.array_equal(plane.numpy(), expected)
    for start, stop in [(0, 1), (0, 9), (1, 2), (5, 23), (9, 18), (17, 31), (26, 29), (39, 40)]:
        start, stop = start * per_frame + per_frame // 2, stop * per_frame
        part = list(read_range(open_input, "in.mkv", info, timeline, layout, start, stop, how))
        assert [number for number, _ in part] == list(range(start, stop))
        for number, planes in part:
            assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(planes, whole[number][1], strict=True)), number


def filtered_by_ffmpeg(source: Path, per_frame: int, which: str) -> list[av.VideoFrame]:
    """The whole video through bwdif in one go."""
    found = []
    graph = av.filter.Graph()
    frames = decoded(source)
    start = graph.add_buffer(width=SIZE[0], height=SIZE[1], format=frames[0].format, time_base=TICK)
    parity = ":parity=tff" if which == "all" else ""
    bwdif = graph.add("bwdif", f"mode={'send_field' if per_frame == 2 else 'send_frame'}:deint={which}{parity}")
    end = graph.add("buffersink")
    start.link_to(bwdif)
    bwdif.link_to(end)
    graph.configure()
    for frame in [*frames, None]:
        graph.push(frame)
        while True:
            try:
                found.append(graph.pull())
            except (BlockingIOError, av.error.EOFError):
                break
    return found


@pytest.mark.parametrize("pix_fmt", ["yuv422p", "yuv420p10le", "yuv422p10le", "yuv444p12le", "gray", "yuva420p", "gbrp"])
def test_c7_frames_of_every_depth_and_subsampling_become_whole(pix_fmt: str) -> None:
    frames = [stating(av.VideoFrame.from_ndarray(frame_of(i, "tff"), "gray").reformat(format=pix_fmt), "tff") for i in range(5)]
    meter = CombMeter()
    for number, picture in deinterlaced(enumerate(frames), 0, 5, Deinterlace(1, every=False, parity="auto")):
        assert picture.format.name == pix_fmt
        assert not picture.interlaced_frame, number
        meter.add(picture)
    assert meter.seen.combed == 0


def test_c7_packed_frames_become_the_same_pictures_as_planar_ones() -> None:
    planar = [
        stating(av.VideoFrame.from_ndarray(frame_of(i, "bff"), "gray").reformat(format="yuv422p"), "bff") for i in range(5)
    ]
    how = Deinterlace(2, every=False, parity="auto")
    expected = dict(deinterlaced(enumerate(planar), 0, 10, how))
    packed = dict(deinterlaced(enumerate(frame.reformat(format="uyvy422") for frame in planar), 0, 10, how))
    assert list(packed) == list(expected) == list(range(10))
    for number, picture in packed.items():
        assert all(np.array_equal(a, b) for a, b in zip(samples(picture), samples(expected[number]), strict=True))


def test_c7_a_format_that_bwdif_would_convert_is_refused() -> None:
    frames = [av.VideoFrame(*SIZE, "gray10le") for _ in range(3)]
    with pytest.raises(MediaError, match="bwdif cannot deinterlace gray10le"):
        list(deinterlaced(enumerate(frames), 0, 3, Deinterlace(1, every=True, parity="tff")))


def test_a_segment_after_a_repeated_frame_reads_from_the_one_it_repeats() -> None:
    timeline = replace(a_timeline(20), repeated=np.isin(np.arange(20), (8, 9)))
    assert frames_needed(10, 20, timeline, Deinterlace(1, every=True, parity="tff")) == (7, 20)
    assert frames_needed(21, 24, timeline, Deinterlace(2, every=True, parity="tff")) == (7, 13)
    assert frames_needed(10, 20, timeline, None) == (10, 20)
