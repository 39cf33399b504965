"""Facts C1 and C2 through whole jobs: planes come back bit for bit, or as their nearest neighbours; alpha is one of them."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.video.colours import encoder_formats
from pipeline.video.encode import SegmentEncoder
from pipeline.video.frames import checksum, layout_of, rows, sample_bytes, to_planes
from pipeline.video.packets import read_packets
from pipeline.video.packing import PACKINGS, REPACKED, pack, unpack
from pipeline.video.plan import EncodeSpec
from tests.media import decoded

SIZE = (37, 23)


def noise_frame(pix_fmt: str, size: tuple[int, int] = SIZE, seed: int = 0) -> av.VideoFrame:
    """Every code value that the depth has in every plane, most of them outside the RGB cube."""
    frame, rng = av.VideoFrame(*size, pix_fmt), np.random.default_rng(seed)
    depth = max(component.bits for component in frame.format.components)
    for index, plane in enumerate(frame.planes):
        view = rows(plane, sample_bytes(frame.format, index))
        if depth > 8:
            view[:] = rng.integers(0, 2**depth, (view.shape[0], view.shape[1] // 2), np.uint16).view(np.uint8)
        else:
            view[:] = rng.integers(0, 2**depth, view.shape, np.uint8)
    return frame


def write_noise(
    path: Path, pix_fmt: str, num_frames: int = 2, codec: str = "ffv1", size: tuple[int, int] = SIZE, **tags: int
) -> Path:
    with av.open(str(path), "w") as out:
        video = out.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt = *size, pix_fmt
        video.options = {"level": "3"} if codec == "ffv1" else {}
        for name, value in tags.items():
            setattr(video.codec_context, name, value)
        for number in range(num_frames):
            frame = noise_frame(pix_fmt, size, number)
            for name, value in tags.items():
                setattr(frame, name, value)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return path


def channels(frame: av.VideoFrame) -> list[np.ndarray]:
    """The samples of every channel, whatever planes they lie in."""
    if frame.format.name in REPACKED:
        return [samples for _, samples in sorted(unpack(frame).items())]
    wide = max(component.bits for component in frame.format.components) > 8
    planes = [np.ascontiguousarray(rows(plane, 2 if wide else 1)) for plane in frame.planes]
    return [plane.view(np.uint16) if wide else plane for plane in planes]


def doubled(plane: np.ndarray, like: np.ndarray) -> np.ndarray:
    return plane.repeat(2, axis=0).repeat(2, axis=1)[: like.shape[0], : like.shape[1]]


@pytest.mark.parametrize("model", ["identity", "nearest-x2"])
@pytest.mark.parametrize("pix_fmt", encoder_formats("ffv1"))
def test_c1_c2_every_format_of_ffv1_returns_bit_for_bit(tmp_path: Path, job, pix_fmt: str, model: str) -> None:
    source = write_noise(tmp_path / "in.mkv", pix_fmt)
    job(source, tmp_path / "out.mkv", model=model, codec="ffv1")
    for before, after in zip(decoded(source), decoded(tmp_path / "out.mkv"), strict=True):
        assert after.format.name == before.format.name
        for a, b in zip(channels(before), channels(after), strict=True):
            assert np.array_equal(a if model == "identity" else doubled(a, b), b)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (37, 41), (38, 53), (75, 46), (427, 239)])
@pytest.mark.parametrize("pix_fmt", ["yuv410p", "yuv411p", "yuv420p", "yuva420p", "yuv444p", "gray", "bgr0"])
def test_c1_ffv1_loses_nothing_of_odd_and_tiny_pictures(tmp_path: Path, pix_fmt: str, size: tuple[int, int]) -> None:
    spec = EncodeSpec("ffv1", pix_fmt, *size, "1/25", "25", None, 0, 2, 2, 2, None, None, 4, True)
    layout = layout_of(pix_fmt, "bt709", full_range=False)
    given = noise_frame(pix_fmt, size)
    encoder = SegmentEncoder(tmp_path / "segment.arrow", spec, layout)
    encoder.write(to_planes(given, layout), 0)
    decoder = av.CodecContext.create("ffv1", "r")
    decoder.extradata = encoder.finish()
    decoder.width, decoder.height = size
    (packet,) = read_packets(tmp_path / "segment.arrow")
    (frame, *_) = [*decoder.decode(av.Packet(packet.data)), *decoder.decode(None)]
    assert all(np.array_equal(a, b) for a, b in zip(channels(given), channels(frame), strict=True))


def test_every_kind_of_format_is_among_them() -> None:
    wanted = {
        "yuv410p", "yuv411p", "yuv420p9le", "yuv422p10le", "yuv440p12le", "yuv444p16le", "yuva420p", "yuva422p10le",
        "yuva444p16le", "gray", "gray14le", "gray16le", "ya8", "bgr0", "bgra", "gbrp9le", "gbrp14le", "gbrap10le", "gbrap16le",
        "rgb48le", "rgba64le",
    }  # fmt: skip
    assert wanted <= set(encoder_formats("ffv1"))


@pytest.mark.parametrize("matrix", [0, 1, 2, 4, 5, 6, 7, 8, 9])
@pytest.mark.parametrize("color_range", [1, 2])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv422p10le"])
def test_c1_every_matrix_and_range_returns_bit_for_bit(
    tmp_path: Path, job, pix_fmt: str, color_range: int, matrix: int
) -> None:
    source = write_noise(tmp_path / "in.mkv", pix_fmt, 1, colorspace=matrix, color_range=color_range)
    report = job(source, tmp_path / "out.mkv", model="identity", codec="ffv1")
    (before,), (after,) = decoded(source), decoded(tmp_path / "out.mkv")
    assert after.format.name == pix_fmt
    assert all(np.array_equal(a, b) for a, b in zip(channels(before), channels(after), strict=True))
    # Planes of G, B and R have one size; elsewhere code point 0 states nothing.
    misused = matrix == 0 and pix_fmt != "yuv444p"
    assert (after.colorspace, after.color_range) == (2 if misused else matrix, color_range)
    assert any("is not stated" in guess for guess in report["guesses"]) == (misused or matrix == 2)


def test_c1_lossless_h264_returns_bit_for_bit(tmp_path: Path, job) -> None:
    for pix_fmt in ("yuv420p", "yuv422p", "yuv444p"):
        source = write_noise(tmp_path / f"{pix_fmt}.mkv", pix_fmt, size=(64, 48))
        job(source, tmp_path / f"{pix_fmt}.mp4", model="identity", crf=0)
        for before, after in zip(decoded(source), decoded(tmp_path / f"{pix_fmt}.mp4"), strict=True):
            assert after.format.name == pix_fmt
            assert all(np.array_equal(a, b) for a, b in zip(channels(before), channels(after), strict=True))


@pytest.mark.parametrize("pix_fmt", sorted(PACKINGS))
@pytest.mark.parametrize("size", [(64, 48), SIZE])
def test_packed_samples_are_taken_apart_and_put_together_without_a_change(pix_fmt: str, size: tuple[int, int]) -> None:
    planar = av.VideoFormat(PACKINGS[pix_fmt].planar, *size)
    rng = np.random.default_rng(1)
    depth = planar.components[0].bits
    small = planar.chroma_height(size[1]), planar.chroma_width(size[0])
    given = {
        name: rng.integers(0, 2**depth, small if name in "UV" else size[::-1]).astype(np.uint8 if depth == 8 else np.uint16)
        for name in set("".join(PACKINGS[pix_fmt].planes)) - {"_"}
    }
    found = unpack(pack(given, pix_fmt))
    assert found.keys() == given.keys()
    for name, samples in given.items():
        assert found[name].dtype == samples.dtype
        assert np.array_equal(found[name], samples), name


@pytest.mark.parametrize("pix_fmt", sorted(set(REPACKED) - {"pal8", "ya8", "ya16le", "ya16be", "nv20le"}))
def test_packed_samples_are_what_ffmpeg_takes_them_for(pix_fmt: str) -> None:
    """At an even size, and from whole codes, FFmpeg's scaler does nothing but move them."""
    planar = noise_frame(REPACKED[pix_fmt], (64, 48))
    planar.color_range = 2 if pix_fmt.startswith("mono") else 0
    packed = planar.reformat(format=pix_fmt)
    again = packed.reformat(format=REPACKED[pix_fmt])
    names = "GBRA" if again.format.is_rgb else "YUVA"
    ours = unpack(packed)
    for name, theirs in zip(names, channels(again), strict=False):
        # It fills up colours of few bits with zeros, or copies of the bits, where ours are spread evenly.
        few_bits = pix_fmt[:3] in ("rgb", "bgr") and pix_fmt[3:] in ("8", "565le", "555le", "444le")
        assert np.abs(ours[name].astype(int) - theirs).max() <= (15 if few_bits else 0), name


@pytest.mark.parametrize("width", [40, 62, 128])
def test_the_checksum_of_one_bit_is_over_what_is_seen(width: int) -> None:
    frames = [av.VideoFrame(width, 4, "monob") for _ in range(2)]
    for frame, fill in zip(frames, (0, 255), strict=True):
        plane = frame.planes[0]
        data = np.full((4, plane.line_size), fill, np.uint8)
        data[:, : (width + 7) // 8] = 0b10100101
        plane.update(data.tobytes())
    assert checksum(frames[0]) == checksum(frames[1])
    changed = np.zeros((4, frames[0].planes[0].line_size), np.uint8)
    frames[1].planes[0].update(changed.tobytes())
    assert checksum(frames[0]) != checksum(frames[1])


def test_a_palette_is_looked_up_and_one_bit_is_black_or_white(tmp_path: Path) -> None:
    frame = av.VideoFrame(4, 1, "pal8")
    rows(frame.planes[0], 1)[:] = np.array([[0, 1, 2, 255]], np.uint8)
    palette = np.random.default_rng(0).integers(0, 256, (256, 4), np.uint8)
    frame.planes[1].update(palette.tobytes())
    found = unpack(frame)
    assert np.array_equal(np.stack([found[name][0] for name in "BGRA"], axis=1), palette[[0, 1, 2, 255]])
    line = av.VideoFrame(8, 1, "monow")
    rows(line.planes[0], 1)[0, 0] = 0b00001111
    assert unpack(line)["Y"][0].tolist() == [255] * 4 + [0] * 4
