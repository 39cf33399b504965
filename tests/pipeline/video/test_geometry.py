"""C6: the picture keeps its shape, its side up and its size: aspect, rotation, mirroring and cropping, tested by rendering."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext

from pipeline.errors import ConfigError, MediaError
from pipeline.video.matroska import CRC, SEGMENT, TRACKS, children, display_size, state_pixel_shape, with_crc
from pipeline.video.turn import ONE, orientation
from tests.media import decoded, luma, numbered_frame, write_video

# a, b, c, d of a display matrix: (x, y) is shown at (a x + c y, b x + d y)
EIGHT = {
    "upright": (1, 0, 0, 1), "turned 90": (0, 1, -1, 0), "turned 180": (-1, 0, 0, -1), "turned 270": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1), "upside down": (1, 0, 0, -1), "transposed": (0, 1, 1, 0), "the other way": (0, -1, -1, 0),
}  # fmt: skip
LOSSLESS = {"model": "nearest-x2", "crf": 0}


def matrix_of(turn: tuple[float, ...], x: int = 0, y: int = 0) -> tuple[int, ...]:
    a, b, c, d = (round(value * ONE) for value in turn)
    return (a, b, 0, c, d, 0, x * ONE, y * ONE, 1 << 30)


def stated_matrix(path: Path) -> tuple[int, ...] | None:
    for data in decoded(path)[0].side_data:
        if data.type.name == "DISPLAYMATRIX":
            return struct.unpack("=9i", bytes(data)[:36])
    return None


def rendered(path: Path) -> np.ndarray:
    """(frames, height, width) luma as a player shows it: every pixel goes where the display matrix sends it."""
    a, b, _, c, d = (matrix_of(EIGHT["upright"]) if stated_matrix(path) is None else stated_matrix(path))[:5]
    assert {abs(value) for value in (a, b, c, d)} == {0, ONE}
    shown = []
    for frame in decoded(path):
        picture = luma(frame)
        y, x = np.mgrid[0 : picture.shape[0], 0 : picture.shape[1]]
        across, down = (a * x + c * y) // ONE, (b * x + d * y) // ONE
        canvas = np.full((np.ptp(down) + 1, np.ptp(across) + 1), -1)
        canvas[down - down.min(), across - across.min()] = picture
        assert (canvas >= 0).all()
        shown.append(canvas)
    return np.array(shown)


def write_turned(path: Path, matrix: tuple[int, ...] | None, shape: Fraction | None = None, num_frames: int = 4) -> Path:
    """A lossless video of 96x64 with a display matrix."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt, video.options = 96, 64, "yuv420p", {"crf": "0", "preset": "ultrafast"}
        video.codec_context.sample_aspect_ratio = shape or Fraction(1)
        video.set_display_matrix(matrix)
        for number in range(num_frames):
            grey = av.VideoFrame.from_ndarray(numbered_frame(number + 1, 96, 64), "gray")
            grey.color_range = 1
            frame = grey.reformat(format="yuv420p", dst_color_range=1)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return path


def pixel_shape(path: Path) -> Fraction | None:
    with av.open(str(path)) as container:
        return container.streams.video[0].sample_aspect_ratio


# Rotation and mirroring.


@pytest.mark.parametrize("ending", [".mp4", ".mov", ".mkv", ".ts"])
@pytest.mark.parametrize("name", EIGHT)
def test_c6_a_turned_or_mirrored_picture_is_shown_as_before(tmp_path: Path, job, name: str, ending: str) -> None:
    source = write_turned(tmp_path / "in.mp4", matrix_of(EIGHT[name]), Fraction(4, 3))
    report = job(source, tmp_path / f"out{ending}", **LOSSLESS)
    larger = np.kron(rendered(source), np.ones((1, 2, 2), int))
    assert np.array_equal(rendered(tmp_path / f"out{ending}"), larger)
    if name == "upright":
        return
    kept = ending != ".ts"
    assert stated_matrix(tmp_path / f"out{ending}") == (stated_matrix(source) if kept else None)
    assert ("mpegts holds no display matrix; the pictures themselves are turned" in report["guesses"]) == (not kept)
    turned = not kept and EIGHT[name][0] == 0
    assert pixel_shape(tmp_path / f"out{ending}") == (Fraction(3, 4) if turned else Fraction(4, 3))


def test_c6_webm_and_av1_are_shown_as_before(tmp_path: Path, job) -> None:
    source = write_turned(tmp_path / "in.mp4", matrix_of(EIGHT["turned 90"]), Fraction(64, 45))
    job(source, tmp_path / "out.webm", codec="libsvtav1", crf=1)
    difference = rendered(tmp_path / "out.webm") - np.kron(rendered(source), np.ones((1, 2, 2), int))
    assert np.abs(difference).mean() < 3
    assert pixel_shape(tmp_path / "out.webm") == Fraction(64, 45)


def test_c6_a_slanted_picture_stays_so_in_mp4_and_is_refused_elsewhere(tmp_path: Path, job) -> None:
    slanted = matrix_of((0.8, 0.6, -0.6, 0.8), x=10)
    source = write_turned(tmp_path / "in.mp4", slanted)
    job(source, tmp_path / "out.mp4", **LOSSLESS)
    assert stated_matrix(tmp_path / "out.mp4") == matrix_of((0.8, 0.6, -0.6, 0.8), x=20)
    for ending, name in ((".mkv", "matroska"), (".ts", "mpegts")):
        with pytest.raises(ConfigError, match=f"{name} cannot hold .* choose an .mp4 or .mov destination"):
            job(source, tmp_path / f"out{ending}", **LOSSLESS)


def test_c6_what_a_matrix_moves_the_picture_by_grows_with_it() -> None:
    phone = matrix_of(EIGHT["turned 90"], x=720)
    assert orientation(phone, "mov", Fraction(2)) == (matrix_of(EIGHT["turned 90"], x=1440), None)
    assert orientation(phone, "matroska", Fraction(2)) == (matrix_of(EIGHT["turned 90"]), None)
    assert orientation(phone, "mpegts", Fraction(2)) == (None, EIGHT["turned 90"])
    assert orientation(matrix_of((2, 0, 0, 2)), "matroska", Fraction(1)) == (None, None)


@pytest.mark.parametrize("ending", [".mov", ".mkv", ".ts"])
def test_c6_a_real_phone_clip_is_shown_as_before(tmp_path: Path, job, shared: Path, ending: str) -> None:
    source = shared / "data/video/rotate90_ios_phone.mov"
    job(source, tmp_path / f"out{ending}", model="identity", crf=0, drop_incompatible=True)
    assert np.array_equal(rendered(tmp_path / f"out{ending}"), rendered(source))


# The shape of pixels.


@pytest.mark.parametrize("shape", ["64/45", "1137/800", "32/27", "10/11", "44/45"])
@pytest.mark.parametrize(
    ("codec", "ending"),
    [("libx264", ".mp4"), ("libx265", ".mov"), ("libsvtav1", ".mp4"), ("libx264", ".ts"), ("libx264", ".mkv"),
     ("libx265", ".mkv"), ("ffv1", ".mkv"), ("libsvtav1", ".mkv"), ("libsvtav1", ".webm")],
)  # fmt: skip
def test_c6_the_shape_of_pixels_is_exactly_the_sources(tmp_path: Path, job, codec: str, ending: str, shape: str) -> None:
    source = write_turned(tmp_path / "in.mp4", None, Fraction(shape), num_frames=2)
    job(source, tmp_path / f"out{ending}", codec=codec)
    assert pixel_shape(tmp_path / f"out{ending}") == pixel_shape(source) == Fraction(shape)


@pytest.mark.parametrize("name", ["sar_64x45_bpyramid.mp4", "firstpts_10s_avc.mp4"])
def test_c6_real_anamorphic_video_keeps_its_shape_in_matroska(tmp_path: Path, job, shared: Path, name: str) -> None:
    source = shared / "data/video" / name
    job(source, tmp_path / "out.mkv", model="identity", codec="libsvtav1", preset="12", crf=60)
    assert pixel_shape(tmp_path / "out.mkv") == pixel_shape(source) not in (None, 1)


def test_c6_every_video_keeps_its_shape_wherever_it_lies_in_the_file(tmp_path: Path, job) -> None:
    first, second = write_turned(tmp_path / "a.mp4", None, Fraction(64, 45)), tmp_path / "b.mp4"
    job(first, second, codec="libsvtav1")  # states its shape in the container alone
    sound = write_video(tmp_path / "c.mp4", 4, with_audio=True)
    source = tmp_path / "in.mp4"
    with av.open(str(source), "w") as out, av.open(str(sound)) as a, av.open(str(second)) as b, av.open(str(first)) as c:
        parts = [(a, a.streams.audio[0]), (b, b.streams.video[0]), (c, c.streams.video[0])]
        copies = [out.add_stream_from_template(stream, opaque=True) for _, stream in parts]
        copies[1].codec_context.sample_aspect_ratio = Fraction(64, 45)
        for (container, stream), copy in zip(parts, copies, strict=True):
            for packet in container.demux(stream):
                if packet.size:
                    packet.stream = copy
                    out.mux(packet)

    for result, codec in ((source, ""), (tmp_path / "out.mkv", "ffv1"), (tmp_path / "out.mp4", "libx264")):
        if codec:
            job(source, result, codec=codec, stream=2)
        with av.open(str(result)) as container:
            assert [stream.type for stream in container.streams] == ["audio", "video", "video"]
            assert [video.sample_aspect_ratio for video in container.streams.video] == [Fraction(64, 45)] * 2


def test_c6_display_sizes_are_exact_as_pixels_or_as_a_ratio() -> None:
    assert display_size(800, 640, Fraction(1137, 800)) == (1137, 640, 0)
    assert display_size(854, 480, Fraction(44, 45)) == (4697, 2700, 3)
    assert Fraction(4697, 2700) == Fraction(854, 480) * Fraction(44, 45)
    assert display_size(128, 96, Fraction(1), stereo_mode=1) == (64, 96, 0)
    assert display_size(128, 96, Fraction(4, 3), stereo_mode=3) == (32, 9, 3)


@pytest.mark.parametrize(
    ("mode", "codec", "ending"),
    [("left_right", "libx264", ".mkv"), ("col_interleaved_rl", "ffv1", ".mkv"), ("top_bottom", "libsvtav1", ".webm"),
     ("anaglyph_cyan_red", "libx264", ".mkv")],
)  # fmt: skip
@pytest.mark.parametrize("shape", ["1", "4/3"])
def test_c6_a_stereo_video_stays_one_and_each_view_keeps_its_shape(
    tmp_path: Path, job, mode: str, codec: str, ending: str, shape: str
) -> None:
    upright, source = write_turned(tmp_path / "in.mp4", None, Fraction(shape), num_frames=2), tmp_path / "in.mkv"
    with av.open(str(upright)) as container, av.open(str(source), "w") as out:
        video = container.streams.video[0]
        copies = [out.add_stream_from_template(video) for _ in range(2)]
        for copy in copies:
            copy.metadata["stereo_mode"] = mode
        for packet in container.demux(video):
            for copy in copies if packet.size else ():
                packet.stream = copy
                out.mux(packet)
    for place in range(2):
        state_pixel_shape(source, place, 96, 64, Fraction(shape))
    report = job(source, tmp_path / f"out{ending}", codec=codec, drop_incompatible=True)
    assert not [line for line in report["warnings"] if "stereo" in line]
    with av.open(str(tmp_path / f"out{ending}")) as container:
        assert len(container.streams.video) == (2 if ending == ".mkv" else 1)
        for video in container.streams.video:
            assert (video.sample_aspect_ratio, video.metadata["stereo_mode"]) == (Fraction(shape), mode)
    report = job(source, tmp_path / "out.mp4")
    assert [line for line in report["warnings"] if "stereo" in line] == [
        f"tags of stream {index} that mp4 cannot hold: stereo_mode" for index in range(2)
    ]


def test_c6_a_matroska_header_stays_whole_when_the_shape_is_stated(tmp_path: Path, job) -> None:
    source = write_turned(tmp_path / "in.mp4", matrix_of(EIGHT["turned 90"]), Fraction(44, 45), num_frames=60)
    job(source, tmp_path / "out.mkv", codec="ffv1")
    data = (tmp_path / "out.mkv").read_bytes()
    segment = next(element for element in children(data, 0, len(data)) if element.id == SEGMENT)
    for element in children(data, segment.content, segment.stop):
        inside = next(children(data, element.content, element.stop), None)
        if inside is not None and inside.id == CRC and element.stop - element.content > 6:
            assert data[inside.start : inside.stop] == with_crc(data[inside.stop : element.stop])[:6]
        assert element.id != TRACKS or inside.id == CRC
    with av.open(str(tmp_path / "out.mkv")) as container:  # the index still leads to the frames
        container.seek(1_500_000)
        assert next(container.decode(video=0)).time == pytest.approx(1.48, abs=0.03)


# Sizes and cropping.


@pytest.mark.parametrize(("model", "codec"), [("nearest-x2", "libx264"), ("identity", "ffv1"), ("nearest-x3", "ffv1")])
def test_c6_odd_sizes_keep_every_row_and_column(tmp_path: Path, job, model: str, codec: str) -> None:
    source = write_video(tmp_path / "in.mkv", 2, codec="ffv1", size=(853, 479))
    scale = 1 if model == "identity" else int(model[-1])
    job(source, tmp_path / "out.mkv", model=model, codec=codec, crf=0 if codec == "libx264" else None)
    for before, after in zip(decoded(source), decoded(tmp_path / "out.mkv"), strict=True):
        assert np.array_equal(luma(after), np.kron(luma(before), np.ones((scale, scale), int)))


def test_c6_an_odd_size_that_the_codec_cannot_hold_is_refused_with_advice_that_works(tmp_path: Path, job) -> None:
    source = write_video(tmp_path / "in.mkv", 2, codec="ffv1", size=(853, 479))
    with pytest.raises(ConfigError, match="--codec ffv1, --pix-fmt yuv444p or a model of even scale"):
        job(source, tmp_path / "out.mkv", model="identity")
    job(source, tmp_path / "out.mkv", model="identity", pix_fmt="yuv444p", crf=0)
    assert np.array_equal(luma(decoded(tmp_path / "out.mkv")[0]), luma(decoded(source)[0]))


def test_c6_cropping_in_the_codec_is_applied_once(tmp_path: Path, job) -> None:
    source = write_video(tmp_path / "in.mp4", 2, size=(100, 52), options={"crf": "0"})  # coded as 112x64
    job(source, tmp_path / "out.mp4", **LOSSLESS)
    assert np.array_equal(luma(decoded(tmp_path / "out.mp4")[1]), np.kron(luma(decoded(source)[1]), np.ones((2, 2), int)))


def cropping_mkv(path: Path, left: int, right: int, top: int, bottom: int) -> Path:
    """Lossless 64x48, of which Matroska's PixelCrop leaves a part."""
    data = bytearray(write_video(path, 3, options={"crf": "0"}).read_bytes())
    start = data.index(b"\xe0\x8a\xb0\x81", data.index(b"V_MPEG4"))  # Video: sizes, unit; then 15 bytes that say nothing
    numbers = zip((0x54CC, 0x54DD, 0x54BB, 0x54AA), (left, right, top, bottom), strict=True)
    video = bytes(data[start + 2 : start + 8]) + b"".join(id.to_bytes(2, "big") + bytes([0x81, n]) for id, n in numbers)
    video = bytes([0xE0, 0x80 | len(video)]) + video
    room = 27 - len(video)
    data[start : start + 27] = video + bytes([0xEC, 0x80 | room - 2]) + bytes(room - 2)
    path.write_bytes(data)
    return path


def cropping_mp4(path: Path) -> Path:
    """Lossless 64x48, of which a clean aperture of 48x36 leaves what cropping_mkv(10, 6, 4, 8) does."""
    data = bytearray(write_video(path, 3, options={"crf": "0"}).read_bytes())
    box = data.index(b"moov") - 4
    assert box > data.index(b"mdat")
    aperture = struct.pack(">I4s8i", 40, b"clap", 48, 1, 36, 1, 2, 1, -2, 1)
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        box = data.index(name, box) - 4
        size = int.from_bytes(data[box : box + 4], "big")
        data[box : box + 4] = (size + len(aperture)).to_bytes(4, "big")
    data[box + size : box + size] = aperture
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("ending", [".mkv", ".mp4"])
def test_c6_cropping_in_the_container_is_applied(tmp_path: Path, job, ending: str) -> None:
    file = tmp_path / f"in{ending}"
    source = cropping_mkv(file, 10, 6, 4, 8) if ending == ".mkv" else cropping_mp4(file)
    report = job(source, tmp_path / "out.mkv", **LOSSLESS)
    assert (report["width"], report["height"]) == (96, 72)
    assert not [line for line in report["warnings"] if "crop" in line]
    for before, after in zip(decoded(source), decoded(tmp_path / "out.mkv"), strict=True):
        assert np.array_equal(luma(after), np.kron(luma(before)[4:40, 10:58], np.ones((2, 2), int)))


def test_c6_cropping_amid_a_chroma_sample_is_said(tmp_path: Path, job) -> None:
    report = job(cropping_mkv(tmp_path / "in.mkv", 11, 6, 5, 8), tmp_path / "out.mkv", **LOSSLESS)
    assert "the container crops at (11, 5), amid a chroma sample; done at (10, 4)" in report["warnings"]
    assert (report["width"], report["height"]) == (96, 72)


def test_c6_a_rotation_that_changes_midway_is_refused_and_the_frame_named(tmp_path: Path, job) -> None:
    upright, source = write_video(tmp_path / "upright.ts", 10, options={"g": "5", "bf": "0"}), tmp_path / "in.ts"
    with av.open(str(upright)) as container, av.open(str(source), "w") as out:
        stream = container.streams.video[0]
        copy = out.add_stream_from_template(stream)
        # ITU-T H.264, D.2.27: a display orientation SEI message before one of the later pictures.
        turn = BitStreamFilterContext("h264_metadata=display_orientation=insert:rotate=90", stream)
        for number, packet in enumerate(packet for packet in container.demux(stream) if packet.size):
            for each in [packet] if number < 5 else turn.filter(packet):
                each.stream = copy
                out.mux(each)
    with pytest.raises(MediaError, match=r"frame 6.* changes the display matrix from None to .*; split the video there"):
        job(source, tmp_path / "out.mkv")


@pytest.mark.parametrize("name", ["out.gif", "out/"])
def test_what_pictures_cannot_state_nor_show_is_refused(tmp_path: Path, job, name: str) -> None:
    part = round(2**0.5 / 2 * 65536)
    source = write_turned(tmp_path / "in.mp4", (part, part, 0, -part, part, 0, 0, 0, 1 << 30))
    with pytest.raises(ConfigError, match="cannot hold the source's display matrix, which does more than turn by quarters"):
        job(source, f"{tmp_path}/{name}", model="identity", preset=None)
