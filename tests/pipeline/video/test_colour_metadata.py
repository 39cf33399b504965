"""Facts C3 and C5 on networks, real files and Dolby Vision: what is kept, and what is said."""

from __future__ import annotations

import re
import struct
from fractions import Fraction
from itertools import product
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from pipeline.errors import MediaError
from pipeline.video.frames import layout_of, rows, to_planes
from pipeline.video.hdr import losses
from swinir.colour import PlaneLayout, planes_to_rgb, rgb_to_planes
from tests.media import decoded, write_video
from tests.pipeline.video.test_alpha import first_frames, write_frames
from tests.pipeline.video.test_colour_tags import HDR10, hdr10_of, tags_of

# The corners of the cube, saturated as can be, and what lies between them.
COLOURS = [*product((0.0, 1.0), repeat=3), (0.5, 0.5, 0.5), (0.2, 0.5, 0.8), (0.9, 0.6, 0.3), (0.75, 0.75, 0)]


def drawn(rgb: torch.Tensor) -> av.VideoFrame:
    """(3, H, W) in [0, 1] as a limited-range BT.709 yuv444p frame."""
    frame = av.VideoFrame(rgb.shape[2], rgb.shape[1], "yuv444p")
    for plane, samples in zip(frame.planes, rgb_to_planes(rgb, PlaneLayout("yuv", 8)), strict=True):
        rows(plane, 1)[:] = samples.numpy()
    return frame


def mean_rgb(frame: av.VideoFrame) -> np.ndarray:
    """The mean of each channel, in 8-bit codes."""
    layout = layout_of(frame.format.name, "bt709", full_range=False)
    return planes_to_rgb(to_planes(frame, layout), layout).double().mean(dim=(1, 2)).numpy() * 255


def test_c3_a_network_shifts_no_channel_of_plain_colours_and_gradients(tmp_path: Path, job) -> None:
    ramp = torch.linspace(0.05, 0.95, 64).expand(48, 64)
    pictures = [torch.tensor(colour, dtype=torch.float32).view(3, 1, 1).expand(3, 48, 64) for colour in COLOURS]
    pictures += [torch.stack([ramp, ramp, ramp]), torch.stack([ramp, ramp.flip(1), 0.3 + 0.4 * ramp])]
    source = write_frames(tmp_path / "in.mkv", [drawn(picture) for picture in pictures], "ffv1", {})

    job(source, tmp_path / "out.mkv", codec="ffv1", model="lightweight-x2", precision="fp32")

    for index, (before, after) in enumerate(zip(decoded(source), decoded(tmp_path / "out.mkv"), strict=True)):
        shift = mean_rgb(after) - mean_rgb(before)
        assert np.abs(shift).max() < 0.25, (index, shift)


def test_c5_a_real_hdr10_clip_keeps_its_metadata_in_hevc(tmp_path: Path, job, shared: Path) -> None:
    source = first_frames(shared / "data/video/hdr10_pq_mdcv_clli_av1_1080p.mp4", tmp_path / "in.mp4", 2)
    mastering, light = hdr10_of(source)
    assert (mastering[0], light) == (Fraction(33899, 50000), (1100, 180))
    job(source, tmp_path / "out.mp4", codec="libx265", model="identity")
    assert tags_of(tmp_path / "out.mp4") == {(1, 9, 9, 16)}
    assert decoded(tmp_path / "out.mp4")[0].format.name == "yuv420p10le"
    assert hdr10_of(tmp_path / "out.mp4") == (mastering, light)


@pytest.mark.parametrize(
    ("file", "pix_fmt", "tags"),
    [
        ("hlg_hevc10_1080p.mp4", "yuv420p10le", (1, 9, 9, 18)),
        ("h264_10bit_200x200.mp4", "yuv420p10le", (0, 2, 2, 2)),
        ("vp9_profile2_10bit.webm", "yuv420p10le", (1, 9, 2, 2)),
        ("fullrange_bt709.mp4", "yuv420p", (2, 1, 1, 1)),
    ],
)
def test_c4_real_files_keep_depth_and_tags(
    tmp_path: Path, job, shared: Path, file: str, pix_fmt: str, tags: tuple[int, ...]
) -> None:
    source = first_frames(shared / "data/video" / file, tmp_path / f"in{Path(file).suffix}", 2)
    job(source, tmp_path / "out.mp4", model="identity")
    (after, *_) = decoded(tmp_path / "out.mp4")
    assert after.format.name.replace("yuvj", "yuv") == pix_fmt
    assert tags_of(tmp_path / "out.mp4") == {tags}
    exact = tmp_path / "exact.mkv"
    job(source, exact, model="identity", codec="ffv1")
    for a, b in zip(decoded(source), decoded(exact), strict=True):
        wide = 2 if pix_fmt.endswith("10le") else 1
        assert all(np.array_equal(rows(x, wide), rows(y, wide)) for x, y in zip(a.planes, b.planes, strict=True))


def with_dolby_vision(source: Path, target: Path, profile: int, compatibility: int) -> Path:
    """The HEVC file with a record (dvcC, Dolby Vision Streams within the ISO Base Media File Format) in its sample entry."""
    content = bytearray(source.read_bytes())
    flags = profile << 9 | 1 << 3 | 0b101  # level 1, with RPU and base layer
    box = struct.pack(">I4s2BHB19x", 32, b"dvcC", 1, 0, flags, compatibility << 4)
    place = content.index(b"hvcC") - 4
    content[place:place] = box
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"hev1"):
        at = content.index(name, content.index(b"moov")) - 4
        struct.pack_into(">I", content, at, struct.unpack_from(">I", content, at)[0] + len(box))
    target.write_bytes(content)  # the index comes last, so that no offset in it changes
    return target


def test_c5_of_dolby_vision_the_base_layer_is_kept_and_the_loss_said(tmp_path: Path, job) -> None:
    plain = write_video(
        tmp_path / "plain.mp4",
        2,
        codec="libx265",
        pix_fmt="yuv420p10le",
        options={"x265-params": "log-level=error"},
        tags=HDR10,
    )
    report = job(with_dolby_vision(plain, tmp_path / "in.mp4", 8, 1), tmp_path / "out.mp4", model="identity", codec="libx265")
    assert any("Dolby Vision metadata cannot be carried over" in line for line in report["warnings"])
    assert tags_of(tmp_path / "out.mp4") == {(1, 9, 9, 16)}
    with pytest.raises(MediaError, match=r"Dolby Vision profile 5 .* convert it to HDR10"):
        job(with_dolby_vision(plain, tmp_path / "five.mp4", 5, 0), tmp_path / "five.out.mp4")


def dynamic_metadata() -> bytes:
    """The least that HDR10+ can say (SMPTE ST 2094-40, T.35 header first) as an SEI unit of HEVC (H.265, 7.3.5)."""
    fields = [(0xB5, 8), (0x3C, 16), (1, 16), (4, 8), (1, 8), (1, 2), (1000, 27), (0, 1), *[(50000, 17)] * 3, (20000, 17),
              (0, 4), (5, 10), (0, 1), (0, 1), (0, 1)]  # fmt: skip
    bits = "".join(f"{value:0{width}b}" for value, width in fields)
    payload = bytes(int(bits[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(bits), 8))
    message = b"\4" + bytes([len(payload)]) + payload + b"\x80"
    escaped = re.sub(rb"\0\0(?=[\0-\3])", b"\0\0\3", message)
    return bytes([39 << 1, 1]) + escaped


def test_c5_of_hdr10_plus_the_base_layer_is_kept_and_the_loss_said(tmp_path: Path, job) -> None:
    options = {"x265-params": "log-level=error:hdr10=1:max-cll=1000,400"}
    plain = write_video(tmp_path / "plain.mp4", 3, codec="libx265", pix_fmt="yuv420p10le", options=options, tags=HDR10)
    source, unit = tmp_path / "in.mp4", dynamic_metadata()
    with av.open(str(plain)) as old, av.open(str(source), "w") as new:
        copy = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux():
            if packet.size:
                changed = av.Packet(len(unit).to_bytes(4, "big") + unit + bytes(packet))
                changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
                changed.duration, changed.is_keyframe, changed.stream = packet.duration, packet.is_keyframe, copy
                new.mux(changed)
    assert "DYNAMIC_HDR_PLUS" in {data.type.name for data in decoded(source)[0].side_data}

    report = job(source, tmp_path / "out.mp4", model="identity", codec="libx265")

    assert any("HDR10+ metadata cannot be carried over" in line for line in report["warnings"])
    assert tags_of(tmp_path / "out.mp4") == {(1, 9, 9, 16)}
    assert hdr10_of(tmp_path / "out.mp4") == hdr10_of(source)
    assert hdr10_of(source)[1] == (1000, 400)


def test_every_loss_is_said_once_and_what_encoders_note_is_not() -> None:
    lines = losses(("DOVI_METADATA", "DOVI_RPU_BUFFER", "DYNAMIC_HDR_PLUS", "SEI_UNREGISTERED"), "libx265", (), ())
    assert lines == ["Dolby Vision metadata cannot be carried over", "HDR10+ metadata cannot be carried over"]
    rounded = losses((), "libsvtav1", ("34000/50000",) * 10, ())
    assert rounded == ["the mastering display is rounded to libsvtav1's units"]
