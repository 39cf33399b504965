"""Image sequences as a source: every file a frame, at its exact time, and none lost without a word."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageCms

from pipeline.errors import ConfigError, MediaError
from pipeline.storage import Store
from pipeline.video.describe import describe
from pipeline.video.matroska import state_pixel_shape
from pipeline.video.numbering import find_sequence
from pipeline.video.probe import open_media
from pipeline.video.sequence import open_input
from tests.media import decoded, numbered_frame, numbers, times, write_video
from tests.pipeline.video.test_job import StoppedError, stop_after

SIZE = (64, 48)


def picture(number: int, mode: str = "RGB") -> Image.Image:
    """Noise, with the number of the frame in its blocks."""
    noise = np.random.default_rng(number).integers(0, 256, (SIZE[1], SIZE[0], 4), np.uint8)
    noise[:8, :64] = numbered_frame(number, *SIZE)[:8, :64, None]
    if mode == "I;16":
        return Image.fromarray(noise[..., 0].astype(np.uint16) * 256 + noise[..., 1])
    return (
        Image.fromarray(noise).convert("RGB").convert(mode)
        if mode not in ("RGBA", "LA")
        else Image.fromarray(noise).convert(mode)
    )


def write_images(
    folder: Path, count: int = 30, start: int = 0, name: str = "%06d.png", mode: str = "RGB", **options: object
) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(start, start + count):
        picture(number, mode).save(folder / (name % number), **options)
    return folder


def shape_of(source: Path) -> Fraction | None:
    with open_input(str(source), None) as media:
        return next(stream.picture.sample_aspect_ratio for stream in describe(media, "it").streams if stream.picture)


def rgb_of(frame: av.VideoFrame) -> np.ndarray:
    return frame.to_ndarray(format="rgb24")


@pytest.mark.parametrize("source", ["frames", "frames/", "frames/f%d.png"])
def test_every_image_is_a_frame_bit_for_bit_in_natural_order_at_its_exact_time(tmp_path: Path, job, source: str) -> None:
    write_images(tmp_path / "frames", 60, start=7, name="f%d.png")
    report = job(f"{tmp_path}/{source}", tmp_path / "out.mkv", model="identity", codec="ffv1", rate="24000/1001")
    assert report["segments"] > 1
    assert report["guesses"] == []
    frames = decoded(tmp_path / "out.mkv")
    assert len(frames) == 60
    for number, frame in enumerate(frames, start=7):
        assert np.array_equal(rgb_of(frame), np.asarray(picture(number)))
    exact = [Fraction(1001, 24000) * i for i in range(60)]
    assert all(abs(a - b) <= Fraction(1, 2000) for a, b in zip(times(tmp_path / "out.mkv"), exact, strict=True))
    assert report["encode"]["time_base"] == "1/24000"


@pytest.mark.parametrize(
    ("ending", "mode", "pix_fmt"),
    [
        ("png", "L", "gray"), ("png", "LA", "ya8"), ("png", "RGBA", "bgra"), ("png", "P", "bgr0"), ("png", "I;16", "gray16le"),
        ("png", "1", "gray"), ("tiff", "RGB", "bgr0"), ("tif", "I;16", "gray16le"), ("bmp", "RGB", "bgr0"),
        ("bmp", "RGBA", "bgra"), ("tga", "RGB", "bgr0"), ("webp", "RGBA", "bgra"),
    ],
)  # fmt: skip
def test_what_an_image_holds_is_what_the_lossless_video_holds(
    tmp_path: Path, job, ending: str, mode: str, pix_fmt: str
) -> None:
    options = {"lossless": True, "exact": True} if ending == "webp" else {}
    source = write_images(tmp_path / "in", 3, name=f"%d.{ending}", mode=mode, **options)
    job(source, tmp_path / "out.mkv", model="identity", codec="ffv1")
    for number, frame in enumerate(decoded(tmp_path / "out.mkv")):
        assert frame.format.name == pix_fmt
        image = picture(number, mode)
        shape = {"gray16le": "gray16le", "gray": "gray", "ya8": "gray"}.get(pix_fmt, "rgba" if mode == "RGBA" else "rgb24")
        expected = {"1": "L", "LA": "L", "P": "RGB"}.get(mode)
        pixels = np.asarray(image.convert(expected) if expected else image)
        assert np.array_equal(frame.to_ndarray(format=shape), pixels)
        if mode == "LA":
            with_alpha = np.frombuffer(frame.planes[0], np.uint8).reshape(SIZE[1], -1)[:, : 2 * SIZE[0]]
            assert np.array_equal(with_alpha.reshape(SIZE[1], SIZE[0], 2), np.asarray(image))


@pytest.mark.parametrize(("mode", "pix_fmt"), [("RGB", "yuv420p"), ("L", "gray")])
def test_c1_jpeg_stays_full_range_yuv_plane_for_plane(tmp_path: Path, job, mode: str, pix_fmt: str) -> None:
    source = write_images(tmp_path / "in", 3, name="%d.jpg", mode=mode)
    job(source, tmp_path / "out.mkv", model="identity", codec="ffv1")
    for number, after in enumerate(decoded(tmp_path / "out.mkv")):
        before = decoded(source / f"{number}.jpg")[0]
        assert after.format.name.replace("yuvj", "yuv") == pix_fmt
        assert after.color_range == 2
        for a, b in zip(before.planes, after.planes, strict=True):
            assert [bytes(a)[y * a.line_size :][: a.width] for y in range(a.height)] == [
                bytes(b)[y * b.line_size :][: b.width] for y in range(b.height)
            ]


def test_nearest_x2_of_a_folder_is_each_pixel_twice(tmp_path: Path, job) -> None:
    source = write_images(tmp_path / "in", 4)
    job(source, tmp_path / "out.mkv", model="nearest-x2", codec="ffv1")
    for number, frame in enumerate(decoded(tmp_path / "out.mkv")):
        assert np.array_equal(rgb_of(frame), np.asarray(picture(number)).repeat(2, 0).repeat(2, 1))


def test_without_a_rate_25_is_taken_and_said_and_other_sources_take_none(tmp_path: Path, job) -> None:
    source = write_images(tmp_path / "in", 3)
    report = job(source, tmp_path / "out.mp4")
    assert "shown at 25 a second" in report["guesses"][0]
    assert times(tmp_path / "out.mp4") == [0, Fraction(1, 25), Fraction(2, 25)]
    with pytest.raises(ConfigError, match="is for image sequences"):
        job(tmp_path / "out.mp4", tmp_path / "again.mp4", rate="24")


def test_a_gap_in_the_numbers_is_an_error_that_names_the_missing_one(tmp_path: Path, job) -> None:
    source = write_images(tmp_path / "in", 5)
    (source / "000002.png").unlink()
    with pytest.raises(MediaError, match=r"000002\.png is missing \(4 images from 0 to 4\)"):
        job(source / "%06d.png", tmp_path / "out.mkv")
    assert job(source, tmp_path / "out.mkv")["frames_out"] == 4  # a folder is taken as it is


def other_sizes(folder: Path) -> None:
    picture(2).resize((32, 32)).save(folder / "000002.png")


def other_kinds(folder: Path) -> None:
    picture(9).save(folder / "a.jpg")


def an_empty_one(folder: Path) -> None:
    (folder / "000002.png").write_bytes(b"")


def a_bad_first(folder: Path) -> None:
    (folder / "000000.png").write_bytes(b"no image at all")


def none_at_all(folder: Path) -> None:
    for image in folder.iterdir():
        image.rename(image.with_suffix(".txt"))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (other_sizes, "change size or format"),
        (other_kinds, r"several kinds \(\.jpg, \.png\)"),
        (an_empty_one, r"000002\.png is empty"),
        (a_bad_first, r"000000\.png: 5 images give 4 frames"),
        (none_at_all, "no images"),
    ],
)
def test_a_folder_that_is_no_sequence_is_refused_in_one_line(
    tmp_path: Path, job, spoil: Callable[[Path], None], said: str
) -> None:
    source = write_images(tmp_path / "in", 5)
    spoil(source)
    with pytest.raises(MediaError, match=said) as caught:
        job(source, tmp_path / "out.mkv")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.mkv").exists()


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "bmp", "webp"])
def test_a5_a_damaged_image_is_named_or_repeated_and_listed(tmp_path: Path, job, ending: str) -> None:
    source = write_images(tmp_path / "in", 6, name=f"%d.{ending}")
    whole = (source / f"3.{ending}").read_bytes()
    (source / f"3.{ending}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MediaError, match=rf"3\.{ending}.*--on-decode-error repeat"):
        job(source, tmp_path / "out.mkv")
    report = job(source, tmp_path / "out.mkv", on_decode_error="repeat")
    assert (report["exit_code"], report["frames_out"]) == (3, 6)
    # FFmpeg knows no video of BMP or WebP, so those are decoded before it, and the frame is whole for it.
    assert report["frames_repaired"] == ([] if ending in ("bmp", "webp") else [3])
    assert any(f"3.{ending}" in line for line in report["warnings"])
    assert numbers(tmp_path / "out.mkv", scale=2) == [0, 1, 2, 2, 4, 5]


def test_b1_a_stopped_job_goes_on_and_a_changed_image_reuses_nothing(tmp_path: Path, job) -> None:
    source = write_images(tmp_path / "in", 90)
    job(source, tmp_path / "whole.mkv")
    with pytest.raises(StoppedError):
        job(source, tmp_path / "out.mkv", run_units=stop_after(2))
    assert job(source, tmp_path / "out.mkv")["segments_reused"] >= 2
    assert (tmp_path / "out.mkv").read_bytes() == (tmp_path / "whole.mkv").read_bytes()

    with pytest.raises(StoppedError):
        job(source, tmp_path / "out.mkv", run_units=stop_after(2), fresh=True)
    picture(5).save(source / "000080.png")
    assert job(source, tmp_path / "out.mkv")["segments_reused"] == 0


def test_a4_seeking_in_a_sequence_finds_the_frame_that_was_asked_for(tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", 40)
    with open_input(str(source), "24000/1001") as media, open_media(media, "in") as container:
        video = container.streams.video[0]
        for number in (31, 3, 39, 0, 17):
            container.seek(1001 * number, stream=video)
            frame = next(container.decode(video))
            assert frame.pts == 1001 * number
            assert np.array_equal(rgb_of(frame), np.asarray(picture(number)))


def test_natural_order_pads_nothing_and_mixes_spellings_of_one_kind(tmp_path: Path) -> None:
    for name in ("b10.jpg", "b9.JPEG", "a 2.jpeg", "a 11.jpg", ".hidden.jpg", "notes.txt"):
        picture(1).save(tmp_path / name, "jpeg")
    names = [Path(image.url).name for image in find_sequence(str(tmp_path)).images]
    assert names == ["a 2.jpeg", "a 11.jpg", "b9.JPEG", "b10.jpg"]


@pytest.mark.parametrize("turn", range(2, 9))
def test_pictures_come_out_upright_as_exif_says(tmp_path: Path, job, turn: int) -> None:
    source = tmp_path / "in"
    source.mkdir()
    exif = Image.Exif()
    exif[0x112] = turn
    corner = Image.new("L", SIZE)
    corner.paste(255, (0, 0, 32, 16))
    for number in range(2):
        corner.save(source / f"{number}.jpg", exif=exif)
    job(source, f"{tmp_path}/out/", model="identity", preset=None)
    if turn in (3, 6, 8):
        job(source, tmp_path / "out.mkv", model="identity")
        assert abs(decoded(tmp_path / "out.mkv")[0].rotation) == {3: 180, 6: 90, 8: 90}[turn]
    shown = np.asarray(Image.open(tmp_path / "out" / "000001.png").convert("L"))
    expected = np.asarray(corner.transpose({
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }[turn]))  # fmt: skip
    assert shown.shape == expected.shape
    assert np.abs(shown.astype(int) - expected).mean() < 3


@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
def test_pixels_are_as_narrow_as_their_density_says(tmp_path: Path, job, ending: str) -> None:
    source = write_images(tmp_path / "in", 2, name=f"%d.{ending}", dpi=(300, 150))
    job(source, tmp_path / "out.mkv", model="identity")
    job(source, f"{tmp_path}/out/", model="identity", preset=None)
    for path in (source, tmp_path / "out.mkv", tmp_path / "out"):
        assert float(shape_of(path) or 1) == pytest.approx(0.5, rel=1e-3)  # PNG counts in whole pixels a metre


@pytest.mark.parametrize("shape", [Fraction(10, 11), None])
def test_png_files_state_the_shape_of_pixels_as_those_of_ffmpeg_do(tmp_path: Path, job, shape: Fraction | None) -> None:
    source = tmp_path / "in.mkv"
    write_video(source, 2, codec="ffv1")
    if shape:
        state_pixel_shape(source, 0, *SIZE, shape)
    job(source, f"{tmp_path}/out/", model="identity", preset=None)
    image = (tmp_path / "out" / "000001.png").read_bytes()
    stated = struct.unpack(">IIB", image[image.index(b"pHYs") + 4 :][:9])
    assert stated == (*(shape or Fraction(1)).as_integer_ratio(), 0)
    assert shape_of(tmp_path / "out") == (shape or 1)


@pytest.mark.parametrize("what", ["is turned otherwise", "has another colour profile"])
def test_an_image_unlike_the_first_is_named(tmp_path: Path, job, what: str) -> None:
    source = write_images(tmp_path / "in", 3)
    odd = sorted(Path(source).iterdir())[1]
    exif = Image.Exif()
    exif[0x112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    with Image.open(odd) as image:
        image.save(odd, **({"exif": exif} if "turned" in what else {"icc_profile": profile}))
    with pytest.raises(MediaError, match=rf"{odd.name}: {what}.*; make the images alike first"):
        job(source, tmp_path / "out.mkv")


def test_an_icc_profile_is_said_to_be_lost_unless_it_is_srgb(tmp_path: Path, job) -> None:
    """With it FFmpeg's PNG frames carry side data that PyAV frees twice: a crash, not a failure, where anything reads them."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source = write_images(tmp_path / "in", 3, icc_profile=profile)
    assert not any("ICC" in line for line in job(source, tmp_path / "out.mkv")["warnings"])
    other = profile.replace("sRGB".encode("utf-16-be"), "wRGB".encode("utf-16-be")).replace(b"sRGB", b"wRGB")
    write_images(tmp_path / "in", 3, icc_profile=other)
    assert any("ICC profile" in line for line in job(source, tmp_path / "out.mkv")["warnings"])


def test_from_a_folder_of_a_bucket(tmp_path: Path, job, s3_url: str) -> None:
    source = write_images(tmp_path / "in", 30)
    bucket = Store(s3_url)
    for image in source.iterdir():
        bucket.upload(image, f"frames/{image.name}")
    for name in ("frames/", "frames/%06d.png"):
        job(f"{s3_url}/{name}", tmp_path / "out.mkv", model="identity", codec="ffv1", overwrite=True)
        frames = decoded(tmp_path / "out.mkv")
        assert all(np.array_equal(rgb_of(frame), np.asarray(picture(i))) for i, frame in enumerate(frames))
        assert len(frames) == 30
