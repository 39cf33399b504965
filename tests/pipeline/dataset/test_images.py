"""What is in a picture file comes out of it, whole and upright, or is refused in words; nothing else happens."""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps, PngImagePlugin, TiffImagePlugin

from pipeline.dataset import exif, images, png
from pipeline.dataset.encoding import write_picture
from pipeline.dataset.images import read_picture
from pipeline.dataset.picture import Encoding, Picture, PictureError
from tests.pipeline.dataset.files import ANY, drawn, every_kind, exif_block, noise, random_picture, saved, tiff16

FILES = every_kind()


def read(data: bytes, **limits: object) -> Picture:
    return read_picture(data, replace(ANY, **limits))


def refused(data: bytes, **limits: object) -> tuple[str, str]:
    with pytest.raises(PictureError) as caught:
        read(data, **limits)
    return caught.value.status, str(caught.value)


@pytest.mark.parametrize("name", sorted(FILES))
def test_f1_every_kind_is_read_upright_at_its_depth(name: str) -> None:
    picture = read(FILES[name])
    turned = name in ("jpeg", "png", "webp", "avif")
    assert picture.pixels.shape[:2] == ((27, 21) if turned else (21, 27))
    assert picture.pixels.dtype == (np.uint16 if "16" in name else np.uint8)
    assert picture.pixels.flags.c_contiguous
    assert picture.pixels.flags.writeable


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "deep"])
def test_f2_orientation_is_applied_once_and_reset(kind: str, orientation: int) -> None:
    block = Image.Exif()
    block[0x0112] = orientation
    image = Image.fromarray(drawn())
    if kind == "deep":
        truth = noise(21, 27, 3)
        data = png.with_chunks(png.encode(truth, 6), png.chunk(b"eXIf", exif.bare(block.tobytes())))
        planes = [ImageOps.exif_transpose(_with(Image.fromarray(truth[..., c]), block)) for c in range(3)]
        expected = np.stack([np.array(plane) for plane in planes], axis=-1)
    else:
        data = saved(image, kind, exif=block)
        expected = np.array(ImageOps.exif_transpose(_with(image, block)))
    picture = read(data)
    assert np.array_equal(picture.pixels, expected)
    again = read(write_picture(picture, picture.pixels, Encoding())[0])
    assert np.array_equal(again.pixels, expected)
    assert exif.orientation(again.metadata.exif) == 1


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_f2_dots_an_inch_turn_with_the_picture(kind: str, orientation: int) -> None:
    block = Image.Exif()
    block[0x0112], block[0x011A], block[0x011B] = orientation, 204.0, 98.0
    picture = read(saved(Image.fromarray(drawn()), kind, exif=block, dpi=(204, 98)))
    expected = (204, 98) if orientation < 5 else (98, 204)
    kept = Image.Exif()
    if picture.metadata.exif:
        kept.load(picture.metadata.exif)
        assert (kept[0x011A], kept[0x011B]) == expected
    assert picture.metadata.dpi == pytest.approx(expected, abs=0.02)


def _with(image: Image.Image, block: Image.Exif) -> Image.Image:
    return Image.open(io.BytesIO(saved(image, "PNG", exif=block)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_f2_exif_icc_and_xmp_are_kept_byte_for_byte_but_for_orientation_and_size(kind: str) -> None:
    icc, xmp = bytes(range(256)) * 300, b'<x:xmpmeta tiff:Orientation="6" a="\xc3\xa9"/>'
    image, block = Image.fromarray(drawn()), exif_block().tobytes()
    data = saved(image, kind, exif=block, icc_profile=icc, **({} if kind == "PNG" else {"xmp": xmp}))
    if kind == "PNG":
        data = png.with_chunks(data, png.metadata_chunks(None, None, xmp, None, ()))
    picture = read(data)
    large = picture.pixels.repeat(2, axis=0).repeat(2, axis=1)
    for encoding in (Encoding(), Encoding("png"), Encoding("jpeg"), Encoding("webp")):
        found = read(write_picture(picture, large, encoding)[0]).metadata
        assert found.icc == icc
        assert found.xmp == xmp.replace(b'"6"', b'"1"')
        before, after = exif.bare(block), found.exif
        expected = bytearray(before)
        for tag, value in ((0x0112, 1), (0xA002, 42), (0xA003, 54)):
            at = next(e.value_at for e in exif._directories(before) if e.tag == tag)
            struct.pack_into(">H" if before.startswith(b"MM") else "<H", expected, at, value)
        assert after == bytes(expected)
        tags = Image.Exif()
        tags.load(after)
        assert (tags[0x0112], tags[0x010F], tags.get_ifd(0x8769)[0x927C]) == (1, "Maker", b"maker's note" * 3)


def test_f2_profiles_and_text_of_many_megabytes_are_kept_and_bombs_refused() -> None:
    icc, text = noise(700_000).tobytes(), zlib.compress(b"a long story " * 200_000)
    jpeg = read(saved(drawn(), "JPEG", icc_profile=icc))
    assert read(write_picture(jpeg, jpeg.pixels, Encoding("png"))[0]).metadata.icc == icc
    for extra in ((b"zTXt", b"Comment\0\0" + text), (b"iTXt", b"Comment\0\1\0\0\0" + text)):
        assert read(png.with_chunks(saved(drawn(), "PNG"), png.chunk(*extra))).metadata.chunks == (extra,)
    bomb = png.chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(png.LARGEST_PROFILE + (1 << 20))))
    assert refused(png.with_chunks(saved(drawn(), "PNG"), bomb))[0] == "decode_error"


@pytest.mark.parametrize("order", ["<", ">"])
def test_f2_thumbnails_are_dropped_and_nothing_moves(order: str) -> None:
    """A block with a thumbnail in the middle and maker's data, found by its offset, behind it."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    first = struct.pack(order + "IHHHIHHHHIIII", 8, 2, 0x0112, 3, 1, 6, 0, 0x927C, 7, 5, 80, 38, 0)[: 4 + 2 + 24]
    first += struct.pack(order + "I", 38)
    second = struct.pack(order + "HHHIIHHIII", 2, 0x0201, 4, 1, 68, 0x0202, 4, 1, 12, 0)
    block = head + first + second + b"\xff\xd8thumbnail\xd9" + b"maker"
    assert block[80:] == b"maker"
    result = exif.upright(block, exif.orientation(block))
    assert len(result) == len(block)
    assert result[80:] == b"maker"
    assert b"thumbnail" not in result
    assert exif.orientation(result) == 1
    assert struct.unpack_from(order + "I", result, 34)[0] == 0
    at_the_end = block[:80] + b""
    shorter = exif.upright(at_the_end[:18] + struct.pack(order + "HHII", 0x010F, 2, 4, 0) + at_the_end[30:], 1)
    assert len(shorter) == 38


def test_a_short_size_tag_grows_when_the_result_is_longer() -> None:
    block = exif.bare(exif_block().tobytes())
    tags = Image.Exif()
    tags.load(exif.with_size(block, 70000, 42))
    assert (tags.get_ifd(0x8769)[0xA002], tags.get_ifd(0x8769)[0xA003]) == (70000, 42)


def test_f2_a_tiffs_own_fields_become_exif() -> None:
    values = {0x010E: "a description", 0x010F: "Maker", 0x8298: "nobody", 0x0112: 6}
    data = saved(drawn(), "TIFF", tiffinfo=values, dpi=(300, 300), compression="tiff_lzw", icc_profile=b"p" * 99)
    picture = read(data)
    tags = Image.Exif()
    tags.load(picture.metadata.exif)
    assert {tag: tags.get(tag) for tag in values} == {**values, 0x0112: None}
    assert not tags.keys() & {0x0100, 0x0102, 0x0111, 0x0117, 0x8773}
    assert picture.metadata.icc == b"p" * 99
    written, ending = write_picture(picture, picture.pixels, Encoding())
    assert ending == ".png"
    assert Image.open(io.BytesIO(written)).info["dpi"] == pytest.approx((300, 300), abs=0.01)


def test_photoshops_layers_in_a_tiff_are_left_out() -> None:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[0x010F], info[0x935C] = "Maker", b"Adobe Photoshop Document Data Block\0" + noise(50_000).tobytes()
    info.tagtype[0x935C] = 7
    picture = read(saved(drawn(), "TIFF", tiffinfo=info))
    tags = Image.Exif()
    tags.load(picture.metadata.exif)
    assert (tags.get(0x010F), 0x935C in tags) == ("Maker", False)
    assert write_picture(picture, picture.pixels, Encoding("jpeg"))[1] == ".jpg"


def test_an_orientation_of_four_bytes_counts_too() -> None:
    block = b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x0112, 4, 1, 6, 0)
    picture = read(png.with_chunks(saved(drawn(), "PNG"), png.chunk(b"eXIf", block)))
    assert np.array_equal(picture.pixels, np.rot90(drawn(), -1))
    assert exif.orientation(picture.metadata.exif) == 1


def test_what_only_one_format_knows_stays_in_it() -> None:
    iptc = b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x04IPTC"
    extra = b"\xff\xed" + struct.pack(">H", len(iptc) + 2) + iptc
    jpeg = read(saved(drawn(), "JPEG", extra=extra, comment=b"hello", dpi=(240, 240)))
    again = Image.open(io.BytesIO(write_picture(jpeg, jpeg.pixels, Encoding())[0]))
    assert (again.info["comment"], again.app["APP13"], again.info["dpi"]) == (b"hello", iptc, (240, 240))
    colours = png.chunk(b"gAMA", struct.pack(">I", 45455)) + png.chunk(b"cICP", bytes([9, 16, 0, 1]))
    text = png.chunk(b"tEXt", b"Author\0me") + png.chunk(b"pHYs", struct.pack(">IIB", 3, 5, 0))
    data = png.with_chunks(saved(drawn(), "PNG"), colours + text)
    picture = read(data)
    found = dict(png.chunks(write_picture(picture, picture.pixels, Encoding())[0]))
    assert (found[b"gAMA"], found[b"cICP"]) == (struct.pack(">I", 45455), bytes([9, 16, 0, 1]))
    assert (found[b"tEXt"], found[b"pHYs"]) == (b"Author\0me", struct.pack(">IIB", 3, 5, 0))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_f2_sixteen_bits_stay_sixteen_bits(channels: int) -> None:
    truth = noise(21, 27, channels)
    files = [png.encode(truth, 6)]
    if channels > 2:
        files += [tiff16(truth, compression) for compression in ("raw", "lzw", "deflate", "packbits")]
    if channels == 1:
        files.append(saved(truth[..., 0], "TIFF"))
    for data in files:
        picture = read(data)
        assert np.array_equal(picture.pixels, truth)
        for wanted in ("same", "png", "jpeg", "webp"):
            written, ending = write_picture(picture, truth, Encoding(wanted))
            assert ending == ".png"
            assert np.array_equal(read(written).pixels, truth)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_the_transparent_grey_of_a_png_is_the_same_at_every_depth(depth: int) -> None:
    values = np.arange(40).reshape(5, 8) % 2 ** min(depth, 5)
    bits = np.unpackbits(values.astype(">u2").view(np.uint8).reshape(5, 8, 2), axis=-1)[..., -depth:].reshape(5, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in np.packbits(bits, axis=1))
    parts = ((b"IHDR", struct.pack(">IIBBBBB", 8, 5, depth, 0, 0, 0, 0)), (b"tRNS", struct.pack(">H", 1)))
    parts += ((b"IDAT", zlib.compress(raw)), (b"IEND", b""))
    pixels = read(png.SIGNATURE + b"".join(png.chunk(*part) for part in parts)).pixels
    peak = 65535 if depth == 16 else 255
    assert np.array_equal(pixels[..., 0], values * (1 if depth == 16 else 255 // (2**depth - 1)))
    assert np.array_equal(pixels[..., 1], np.where(values == 1, 0, peak))


def test_white_is_zero_in_some_tiffs_of_sixteen_bits() -> None:
    truth = noise(21, 27)
    assert np.array_equal(read(saved(truth, "TIFF", tiffinfo={0x0106: 0})).pixels[..., 0], 65535 - truth)


def test_palettes_become_rgb_or_rgba() -> None:
    palette = Image.fromarray(drawn()).quantize(8)
    assert np.array_equal(read(saved(palette, "PNG")).pixels, np.array(palette.convert("RGB")))
    shown = read(saved(palette, "GIF", transparency=3)).pixels
    hidden = np.array(palette) == 3
    assert hidden.any()
    assert np.array_equal(shown[..., 3], np.where(hidden, 0, 255))


def test_cmyk_becomes_srgb_and_loses_its_profile() -> None:
    cmyk = Image.fromarray(drawn()).convert("CMYK")
    lossy = Image.open(io.BytesIO(saved(cmyk, "JPEG")))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for data in (saved(cmyk, "JPEG"), saved(cmyk, "JPEG", icc_profile=srgb), saved(cmyk, "JPEG", icc_profile=b"?" * 200)):
        picture = read(data)
        assert np.array_equal(picture.pixels, np.array(lossy.convert("RGB")))
        assert picture.metadata.icc is None


def test_cmyk_is_converted_by_its_own_profile() -> None:
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    pixels = read(saved(cyan, "TIFF", icc_profile=cmyk_profile(cyan_as=(60, 20, -30)))).pixels
    assert np.abs(pixels[8, 8].astype(int) - (160, 131, 198)).max() <= 3  # Lab 60 20 -30 in sRGB
    assert np.array_equal(read(saved(cyan, "TIFF")).pixels[8, 8], (0, 255, 255))


def cmyk_profile(cyan_as: tuple[int, int, int]) -> bytes:
    """A printer's profile (ICC.1:2001-04, 6.5.8) of two points an axis: paper white, full ink black, but cyan alone."""
    ramp = bytes(range(256))
    corners = [(0, 128, 128)] * 16
    corners[0], corners[8] = (255, 128, 128), (round(cyan_as[0] * 2.55), cyan_as[1] + 128, cyan_as[2] + 128)
    identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + ramp * 4 + bytes(sum(corners, ())) + ramp * 3
    text = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    body, tags = b"", b""
    for name, content in ((b"desc", text), (b"wtpt", white), (b"A2B0", table)):
        content += bytes(-len(content) % 4)
        tags += name + struct.pack(">II", 128 + 4 + 36 + len(body), len(content))
        body += content
    header = struct.pack(">I4sI4s4s4s", 128 + 4 + 36 + len(body), b"test", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", 3) + tags + body


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (b"", "decode_error", "empty"),
        (b"just some text", "decode_error", "not a picture"),
        (b"BMW is a car and no bitmap, whatever it begins with", "decode_error", "damaged BMP"),
        (b"%PDF-1.7", "unsupported", "PDF is not read; pictures are JPEG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "unsupported", "HEIF"),
        (b"PK\3\4\x14\0\0\0", "unsupported", "compressed archive is not read"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "unsupported", "compressed archive is not read"),
        (FILES["png"][:200], "decode_error", "damaged PNG"),
        (FILES["png16"][:2000], "decode_error", "damaged PNG"),
        (FILES["jpeg"][:-200], "decode_error", "damaged JPEG"),
        (saved(Image.new("F", (8, 8)), "TIFF"), "unsupported", "floating point"),
        (saved(Image.new("I", (8, 8)), "TIFF"), "unsupported", "32 bits"),
        (saved(Image.new("LAB", (8, 8)), "TIFF"), "unsupported", "Lab"),
    ],
)
def test_f1_what_is_no_picture_is_refused_in_one_line(data: bytes, status: str, words: str) -> None:
    found, message = refused(data)
    assert (found, words in message, "\n" in message) == (status, True, False), message


@pytest.mark.parametrize("tags", [{254: 1}, {50706: b"\1\4\0\0"}])
def test_f1_a_preview_in_place_of_a_raw_picture_is_refused(tags: dict[int, Any]) -> None:
    with pytest.raises(PictureError, match="camera raw, or a TIFF of which the first picture is a preview"):
        read(saved(Image.fromarray(drawn()), "TIFF", tiffinfo=tags))
    assert read(saved(Image.fromarray(drawn()), "TIFF", tiffinfo={254: 2})).format == "TIFF"


def test_f1_animations_are_refused_or_their_first_picture_is_taken() -> None:
    for name in ("animated gif", "animated webp", "animated png", "pages"):
        assert refused(FILES[name], animated="refuse") == (
            "unsupported",
            "several pictures in one file; --animated first takes the first of each",
        )
        assert np.abs(read(FILES[name]).pixels.astype(int) - drawn()).mean() < 20


def test_f4_sizes_have_limits_and_pillows_own_limit_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    data = FILES["png"]
    assert refused(data, max_pixels=566)[0] == "too_large"
    assert refused(data, min_side=21) == ("skipped", "27x21 has no side under 21 pixels")
    assert refused(data, skip_pixels=566) == ("skipped", "27x21 is more than 566 pixels")
    read(data, max_pixels=567, min_side=22, skip_pixels=567)
    bomb = png.SIGNATURE + png.chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)) + data[33:]
    assert refused(bomb)[0] == "too_large"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 101)
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_MEMORY", 102)
    filters = list(warnings.filters)
    threads = [threading.Thread(target=read, args=(one,)) for one in FILES.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY) == (100, 101, 102)
    assert warnings.filters == filters


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(sorted(FILES)),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8),
    st.floats(0, 1),
    st.sampled_from(["same", "png", "jpeg", "webp"]),
)
def test_f1_damage_is_a_picture_error_or_a_picture_and_never_another_exception(name, flips, length, wanted) -> None:
    data = bytearray(FILES[name])
    for place, value in flips:
        data[int(place * (len(data) - 1))] = value
    try:
        picture = read(bytes(data[: round(len(data) * min(1, 1.5 * length))]))
    except PictureError as error:
        refusal = error
    else:
        written, _ = write_picture(picture, picture.pixels, Encoding(wanted))
        assert read(written).pixels.shape[:2] == picture.pixels.shape[:2]
        return
    assert refusal.status in ("decode_error", "unsupported", "too_large")
    assert "\n" not in str(refusal)


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("profile", [b"", b"p" * 301])
def test_a_webp_file_is_known_as_lossless_whatever_lies_before_its_pixels(lossless: bool, profile: bytes) -> None:
    assert read(saved(drawn(), "WEBP", lossless=lossless, icc_profile=profile)).lossless is lossless


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pixels_taken_band_by_band_are_the_same(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = random_picture(21, 27, channels, np.uint8)
    data = saved(truth[..., 0] if channels == 1 else truth, "PNG")
    monkeypatch.setattr(images, "BAND_SAMPLES", 300)
    assert np.array_equal(read_picture(data, ANY).pixels, truth)
