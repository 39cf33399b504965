"""Transparency is one more plane: upscaled, kept where the target can hold it, and its loss said where it cannot."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.video.frames import is_transparent, rows
from tests.media import decoded, write_video
from tests.pipeline.video.test_colour_exact import channels, noise_frame, write_noise


def write_frames(path: Path, frames: list[av.VideoFrame], codec: str, options: dict[str, str]) -> Path:
    with av.open(str(path), "w") as out:
        video = out.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt = frames[0].width, frames[0].height, frames[0].format.name
        video.options = options
        for frame in frames:
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return path


def masked(mask: np.ndarray, pix_fmt: str = "yuva420p") -> av.VideoFrame:
    """A grey picture whose alpha is ``mask``, (H, W) uint8."""
    frame = noise_frame(pix_fmt, mask.shape[::-1])
    for plane in list(frame.planes)[:3]:
        rows(plane, 1)[:] = 120
    rows(frame.planes[3], 1)[:] = mask
    return frame


def disc(number: int = 0, size: int = 48) -> np.ndarray:
    """A soft-edged mask that moves."""
    y, x = np.mgrid[0:size, 0:64]
    return np.clip((16 - np.hypot(y - 24, x - 24 - number)) * 40 + 128, 0, 255).astype(np.uint8)


def alpha(frame: av.VideoFrame) -> np.ndarray:
    assert any(component.is_alpha for component in frame.format.components), frame.format.name
    return channels(frame)[0 if frame.format.name == "bgra" else 3]


def test_alpha_of_vp9_lies_beside_the_picture_and_is_found_and_kept(tmp_path: Path, job) -> None:
    frames = [masked(disc(number)) for number in range(30)]
    options = {"lossless": "1", "cpu-used": "8", "g": "10", "auto-alt-ref": "0"}
    source = write_frames(tmp_path / "in.webm", frames, "libvpx-vp9", options)
    assert decoded(source)[0].format.name == "yuv420p"  # what FFmpeg's own decoder makes of it
    with av.open(str(source)) as container:
        assert container.streams[0].metadata["alpha_mode"] == "1"

    job(source, tmp_path / "opaque.mkv")
    with av.open(str(tmp_path / "opaque.mkv")) as container:
        assert "alpha_mode" not in [key.lower() for key in container.streams[0].metadata]

    report = job(source, tmp_path / "out.mkv", codec="ffv1", segment_seconds=0.96)

    assert not report["warnings"]
    assert report["video"]["transparent"]
    result = decoded(tmp_path / "out.mkv")
    assert len(result) == 30
    for number, frame in enumerate(result):
        assert frame.format.name == "yuva420p"
        assert np.array_equal(alpha(frame), disc(number).repeat(2, axis=0).repeat(2, axis=1))


def test_a_worker_seeks_in_vp9_with_alpha(tmp_path: Path, job) -> None:
    frames = [masked(disc(number)) for number in range(80)]
    options = {"lossless": "1", "cpu-used": "8", "g": "10", "auto-alt-ref": "0"}
    source = write_frames(tmp_path / "in.webm", frames, "libvpx-vp9", options)
    report = job(source, tmp_path / "out.mkv", codec="ffv1", model="identity", segment_seconds=1)
    assert report["segments"] > 1
    for number, frame in enumerate(decoded(tmp_path / "out.mkv")):
        assert np.array_equal(alpha(frame), disc(number))


def test_alpha_of_prores_4444_is_kept_in_ten_bits(tmp_path: Path, job) -> None:
    source = write_noise(tmp_path / "in.mov", "yuva444p10le", codec="prores_ks", size=(64, 48))
    before = decoded(source)
    job(source, tmp_path / "out.mkv", codec="ffv1", model="identity")
    for a, b in zip(before, decoded(tmp_path / "out.mkv"), strict=True):
        assert b.format.name == a.format.name
        assert is_transparent(b)
        assert all(np.array_equal(x, y) for x, y in zip(channels(a), channels(b), strict=True))


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1"])
def test_codecs_that_cannot_hold_alpha_say_so_and_how_to_keep_it(tmp_path: Path, job, codec: str) -> None:
    source = write_frames(tmp_path / "in.mkv", [masked(disc())], "ffv1", {})
    report = job(source, tmp_path / "out.mkv", codec=codec)
    assert any(f"{codec} cannot hold transparency; it is dropped (--codec ffv1" in line for line in report["warnings"])


def test_a_picture_that_could_be_transparent_and_is_not_loses_nothing(tmp_path: Path, job) -> None:
    source = write_frames(tmp_path / "in.mkv", [masked(np.full((48, 64), 255, np.uint8))], "ffv1", {})
    report = job(source, tmp_path / "out.mkv")
    assert not report["video"]["transparent"]
    assert not report["warnings"]


def test_what_lies_under_transparent_pixels_stays_as_it_is(tmp_path: Path, job) -> None:
    """Straight alpha in, straight alpha out: no colour is mixed with another because of the mask."""
    frame = masked(disc())
    hidden = np.random.default_rng(0).integers(0, 256, (48, 64), np.uint8)
    rows(frame.planes[0], 1)[:] = hidden
    source = write_frames(tmp_path / "in.mkv", [frame], "ffv1", {})
    job(source, tmp_path / "out.mkv", codec="ffv1")
    (after,) = decoded(tmp_path / "out.mkv")
    assert np.array_equal(channels(after)[0], hidden.repeat(2, axis=0).repeat(2, axis=1))


def test_a_network_leaves_alpha_to_bicubic(tmp_path: Path, job) -> None:
    source = write_frames(tmp_path / "in.mkv", [masked(disc())], "ffv1", {})
    job(source, tmp_path / "network.mkv", codec="ffv1", model="lightweight-x2", precision="fp32")
    job(source, tmp_path / "bicubic.mkv", codec="ffv1", model="bicubic-x2")
    (network,), (bicubic,) = decoded(tmp_path / "network.mkv"), decoded(tmp_path / "bicubic.mkv")
    assert np.array_equal(alpha(network), alpha(bicubic))
    assert alpha(network).min() == 0
    assert alpha(network).max() == 255
    assert abs(alpha(network).mean() - disc().mean()) < 1


def test_a_transparent_gif_keeps_its_holes(tmp_path: Path, job, shared: Path) -> None:
    source = shared / "data/video/gif_vfr_transparent.gif"
    before = decoded(source)
    report = job(source, tmp_path / "out.mkv", codec="ffv1")
    assert report["video"]["transparent"] == any(is_transparent(frame) for frame in before)
    after = decoded(tmp_path / "out.mkv")
    assert len(after) == len(before)
    for a, b in zip(before, after, strict=True):
        assert b.format.name == "bgra"
        doubled = [x.repeat(2, axis=0).repeat(2, axis=1) for x in channels(a)]
        assert all(np.array_equal(x, y) for x, y in zip(doubled, channels(b), strict=True))


def first_frames(source: Path, target: Path, num_packets: int) -> Path:
    """The first packets of the video, copied."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream, opaque=True)
        copy.metadata.update(stream.metadata)
        for count, packet in enumerate(old.demux(stream)):
            if count == num_packets:
                break
            packet.stream = copy
            new.mux(packet)
    return target


def test_a_real_vp9_clip_with_alpha(tmp_path: Path, job, shared: Path) -> None:
    """Block additions of WebM are side data that a copy through PyAV keeps."""
    source = first_frames(shared / "data/video/alpha_vp9.webm", tmp_path / "in.webm", 3)
    report = job(source, tmp_path / "out.mkv", codec="ffv1", model="identity")
    assert report["video"]["transparent"]
    assert report["frames_out"] == 3
    frames = decoded(tmp_path / "out.mkv")
    assert [frame.format.name for frame in frames] == ["yuva420p"] * 3
    assert 150 < alpha(frames[0]).mean() < 200
    assert frames[1].pts * frames[1].time_base <= Fraction(1, 20)


def test_an_opaque_picture_asked_for_with_alpha_is_opaque(tmp_path: Path, job) -> None:
    source = write_video(tmp_path / "in.mkv", 2)
    job(source, tmp_path / "out.mkv", codec="ffv1", pix_fmt="yuva420p")
    assert not is_transparent(decoded(tmp_path / "out.mkv")[0])
