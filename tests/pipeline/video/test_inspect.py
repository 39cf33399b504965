"""``swinir inspect``: what a file holds, and whether one file has all of another."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from jobs.cli import app
from pipeline.errors import ConfigError, MediaError
from pipeline.storage import Store
from pipeline.video.checks import Check
from pipeline.video.compare import compare
from pipeline.video.describe import describe, nal_units, payload
from pipeline.video.description import Description
from tests.media import write_video
from tests.s3 import S3Server
from tests.sources import Builder

run = CliRunner().invoke


def remuxed(source: Path, target: Path, start: int = 0, tags: dict[str, str] | None = None) -> Path:
    """The same packets in another container; the sound from ``start`` packets on, and with other tags."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        streams = (*old.streams.video, *old.streams.audio)
        copies = {stream.index: new.add_stream_from_template(stream, opaque=True) for stream in streams}
        new.metadata.update(tags or {"title": "Ein Film"})
        copies[1].metadata["language"] = "deu"
        new.set_chapters([{"id": 1, "start": 0, "end": 1000, "time_base": Fraction(1, 1000), "metadata": {"title": "Anfang"}}])
        num_sound = 0
        for packet in old.demux(*streams):
            if not packet.size:
                continue
            num_sound += packet.stream.type == "audio"
            if packet.stream.type == "video" or num_sound > start:
                packet.stream = copies[packet.stream.index]
                new.mux(packet)
    return target


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inspect")
    plain = write_video(folder / "plain.mp4", 30, options={"bf": "2", "g": "12"}, with_audio=True)
    return remuxed(plain, folder / "source.mp4")


@pytest.fixture(scope="module")
def described(source: Path) -> Description:
    return describe(str(source), source.name)


def failed(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.status for check in checks if check.status in ("differs", "lost")}


def test_a_file_is_described_by_decoding_it(described: Description) -> None:
    video, sound = described.streams[:2]
    assert video.picture is not None
    assert video.end is not None
    assert (video.type, video.codec, len(video.shown), video.picture.pix_fmt) == ("video", "h264", 30, "yuv420p")
    assert (video.end - video.shown[0]) * video.time_base == Fraction(30, 25)
    assert (sound.type, sound.codec, sound.language, sound.sample_rate) == ("audio", "aac", "deu", 48000)
    assert sound.skipped_samples[0] == 1024  # the encoder's priming
    assert sound.shown == (0,)
    assert described.tags["title"] == "Ein Film"
    assert described.chapters == ((Fraction(0), Fraction(1), "Anfang"),)
    assert described.damage == ()


def test_a_file_equals_itself(described: Description) -> None:
    assert failed(compare(described, described)) == {}


@pytest.mark.parametrize("suffix", [".mov", ".m4v"])
def test_the_same_packets_in_another_container_are_recognised(source: Path, described: Description, suffix: str) -> None:
    other = describe(str(remuxed(source, source.with_suffix(suffix))), "other")
    checks = {check.name: check for check in compare(described, other)}
    for name in ("video 0 payload", "audio 1 payload", "video 0 frame times", "audio 1 packet times", "audio 1 samples"):
        assert checks[name].status == "ok", checks[name]
    assert checks["video 0 size"].detail.endswith("x1")


def test_sound_that_moved_against_the_picture_is_found(source: Path, described: Description, tmp_path: Path) -> None:
    late = describe(str(remuxed(source, tmp_path / "late.mp4", start=3)), "late")
    found = failed(compare(described, late))
    assert found["audio 1 offset to the video"] == "differs"
    assert found["audio 1 packets"] == "differs"


def test_results_that_are_as_they_should_be_pass(tmp_path: Path, job) -> None:
    """An opaque channel that went, a matrix that was a mistake, and the transparent colour that every GIF has."""
    opaque = write_video(tmp_path / "opaque.mkv", 3, codec="ffv1", pix_fmt="bgra")
    wrong = write_video(tmp_path / "wrong.mkv", 3, codec="ffv1", tags={"colorspace": 0})
    for source, destination in ((opaque, "out.mp4"), (wrong, "out.mkv"), (opaque, "out.gif")):
        result = tmp_path / destination
        job(source, result, **({"preset": None} if destination == "out.gif" else {}))
        found = failed(compare(describe(str(source), ""), describe(str(result), "")))
        assert not {"video 0 alpha", "video 0 matrix"} & found.keys(), destination


def on_video(**changes: object) -> Callable[[Description], Description]:
    return lambda d: replace(d, streams=(replace(d.streams[0], **changes), *d.streams[1:]))


def on_picture(**changes: object) -> Callable[[Description], Description]:
    return lambda d: on_video(picture=replace(d.streams[0].picture, **changes))(d)


def on_sound(**changes: object) -> Callable[[Description], Description]:
    return lambda d: replace(d, streams=(d.streams[0], replace(d.streams[1], **changes), *d.streams[2:]))


def moved(times: tuple[int, ...], number: int, ticks: int = 1) -> tuple[int, ...]:
    return (*times[:number], times[number] + ticks, *times[number + 1 :])


DIFFERENCES: dict[str, tuple[Callable[[Description], Description], str]] = {
    "video 0 frames": (lambda d: on_video(shown=d.streams[0].shown[:-1])(d), "differs"),
    "video 0 frame times": (lambda d: on_video(shown=moved(d.streams[0].shown, 7))(d), "differs"),
    "video 0 duration": (lambda d: on_video(end=d.streams[0].end + 2)(d), "differs"),
    "video 0 size": (on_picture(width=128, height=90), "differs"),
    "video 0 sample aspect": (on_picture(sample_aspect_ratio=Fraction(4, 3)), "differs"),
    "video 0 rotation": (on_picture(display_matrix=(0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)), "differs"),
    "video 0 range": (on_picture(color_range=2), "differs"),
    "video 0 matrix": (on_picture(color_space=9), "differs"),
    "video 0 primaries": (on_picture(color_primaries=9), "differs"),
    "video 0 transfer": (on_picture(color_trc=16), "differs"),
    "video 0 light": (on_picture(light=(1000, 400)), "differs"),
    "video 0 depth": (on_picture(depth=7, pix_fmt="small"), "lost"),
    "video 0 chroma": (on_picture(chroma=(2, 2)), "lost"),
    "video 0 interlaced frames": (on_picture(num_interlaced=3), "differs"),
    "video 0 disposition": (on_video(disposition=()), "lost"),
    "audio 1 offset to the video": (lambda d: on_sound(shown=moved(d.streams[1].shown, 0))(d), "differs"),
    "audio 1 packet times": (lambda d: on_sound(packet_pts=moved(d.streams[1].packet_pts, 3))(d), "differs"),
    "audio 1 payload": (lambda d: on_sound(hashes=moved(d.streams[1].hashes, 3))(d), "differs"),
    "audio 1 priming": (on_sound(skipped_samples=(0, 0)), "differs"),
    "audio 1 samples": (on_sound(num_samples=7), "differs"),
    "audio 1 codec": (on_sound(codec="mp3"), "differs"),
    "audio 1 language": (on_sound(tags={}), "lost"),
    "audio 1": (lambda d: replace(d, streams=d.streams[:1]), "lost"),
    "chapters": (lambda d: replace(d, chapters=()), "lost"),
    "tags of the file": (lambda d: replace(d, tags={}), "lost"),
    "result damage": (lambda d: replace(d, damage=("a packet cannot be decoded",)), "differs"),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_each_difference_is_found_under_its_name(described: Description, name: str) -> None:
    change, status = DIFFERENCES[name]
    found = failed(compare(described, change(described)))
    assert found.get(name.replace("light", "content light level")) in (status, "lost"), found
    assert len(found) <= 3, found  # what depends on it may be named too


def test_times_are_exact_where_the_ticks_allow_it_and_within_one_where_they_do_not(described: Description) -> None:
    video = described.streams[0]
    coarse = replace(video, time_base=Fraction(1, 1000), shown=tuple(range(0, 1200, 40)), end=1200)
    assert "video 0 frame times" not in failed(compare(described, replace(described, streams=(coarse, *described.streams[1:]))))
    off = replace(coarse, shown=moved(coarse.shown, 9, 2))
    assert "video 0 frame times" in failed(compare(described, replace(described, streams=(off, *described.streams[1:]))))


def test_payloads_are_the_same_whatever_a_container_wraps_round_them() -> None:
    slices = [b"\x65" + bytes(range(1, 40)), b"\x41" + bytes(range(40, 80))]
    annex_b = b"\0\0\0\1\x09\xf0" + b"".join(b"\0\0\0\1" + unit for unit in slices)
    lengths = b"".join(len(unit).to_bytes(4) + unit for unit in slices)
    assert nal_units(lengths) == slices
    assert payload(annex_b, "h264") == payload(lengths, "h264")
    assert payload(b"\xff\xf1\x4c\x80\x02\x1f\xfc" + b"sound", "aac") == payload(b"sound", "aac") == b"sound"


def test_the_command_shows_a_file_as_a_table_and_as_json(source: Path) -> None:
    shown = run(app, ["inspect", str(source)])
    assert (shown.exit_code, "video h264" in shown.output, "Anfang" in shown.output) == (0, True, True)
    page = json.loads(run(app, ["inspect", "--json", str(source)]).output)
    assert [stream["type"] for stream in page["streams"]][:2] == ["video", "audio"]
    assert (page["streams"][0]["frames"], page["streams"][0]["duration_s"]) == (30, 1.2)


def test_the_command_compares_two_files_and_its_exit_code_says_whether_they_agree(source: Path, tmp_path: Path) -> None:
    same = run(app, ["inspect", "--verify", str(source), str(source)])
    assert (same.exit_code, "checks hold" in same.output) == (0, True)
    other = remuxed(source, tmp_path / "other.mp4", tags={"title": "Another"})
    lines = run(app, ["inspect", "--verify", "--json", str(source), str(other)])
    assert lines.exit_code == 3
    checks = [json.loads(line) for line in lines.output.splitlines()]
    assert [c["name"] for c in checks if c["status"] == "differs"] == ["tags of the file"]
    assert "Another" in next(c["detail"] for c in checks if c["name"] == "tags of the file")


def test_the_report_beside_a_result_explains_what_is_missing(tmp_path: Path, job, shared: Path) -> None:
    source = shared / "data/video/subs_pgs_ac3.mkv"
    job(source, tmp_path / "out.mp4", model="identity", drop_incompatible=True)
    lines = run(app, ["inspect", "--verify", "--json", str(source), str(tmp_path / "out.mp4")]).output.splitlines()
    lost = next(c for c in map(json.loads, lines) if c["name"] == "subtitle 2")
    assert lost["status"] == "lost"
    assert "reported: mp4 cannot hold it" in lost["detail"]


@pytest.mark.parametrize(
    "report", ["[]", "{}", '{"streams": 7}', '{"streams": ["video"]}', '{"streams": [{"index": 0}]}', '{"streams": null}', "x"]
)
def test_a_report_of_another_program_explains_nothing(source: Path, tmp_path: Path, report: str) -> None:
    result = remuxed(source, tmp_path / "out.mp4")
    (tmp_path / "out.mp4.report.json").write_text(report)
    assert run(app, ["inspect", "--verify", str(source), str(result)]).exit_code == 0


def test_a_report_that_may_not_be_read_does_not_stop_the_comparison(source: Path, s3: S3Server, s3_url: str) -> None:
    Store(s3_url).upload(source, "out.mp4")
    s3.rule = lambda method, path: 403 if path.endswith(".report.json") else None
    same = run(app, ["inspect", "--verify", str(source), f"{s3_url}/out.mp4"])
    assert (same.exit_code, "checks hold" in same.output) == (0, True)


def test_the_command_refuses_what_it_cannot_compare_or_read(source: Path, tmp_path: Path) -> None:
    assert isinstance(run(app, ["inspect", "--verify", str(source)]).exception, ConfigError)
    (tmp_path / "text.mp4").write_text("no video " * 99)
    unreadable = run(app, ["inspect", str(tmp_path / "text.mp4")]).exception
    assert isinstance(unreadable, MediaError)
    assert unreadable.exit_code == 2
    missing = run(app, ["inspect", str(tmp_path / "missing.mkv")]).exception
    assert isinstance(missing, MediaError)
    assert "missing.mkv" in str(missing)


def test_a_result_of_ours_holds_every_check(source: Path, tmp_path: Path, job) -> None:
    job(source, tmp_path / "out.mp4")
    checks = compare(describe(str(source), "in"), describe(str(tmp_path / "out.mp4"), "out"))
    assert failed(checks) == {}
    assert np.isin([c.status for c in checks], ["ok", "n/a"]).all()


@pytest.mark.parametrize(("before", "after"), [("mkv", "mp4"), ("mp4", "mkv"), ("mkv", "mov")])
def test_a_result_in_another_container_holds_every_check(tmp_path: Path, job, before: str, after: str) -> None:
    source = Builder(tmp_path / f"in.{before}").video(30, title="Hauptfilm").sound("aac", title="Deutsch").chapters().write()
    job(source, tmp_path / f"out.{after}")
    checks = compare(describe(str(source), "in"), describe(str(tmp_path / f"out.{after}"), "out"))
    assert failed(checks) == {}
    assert [c.status for c in checks if c.name in ("chapters", "video 0 title", "audio 1 title")] == ["ok"] * 3


@pytest.mark.parametrize(("codec", "pix_fmt"), [("png", "rgb24"), ("png", "gray"), ("qtrle", "rgb24")])
def test_rgb_and_grey_have_no_matrix_to_lose(tmp_path: Path, job, codec: str, pix_fmt: str) -> None:
    source = write_video(tmp_path / "in.mov", 3, codec=codec, pix_fmt=pix_fmt)
    job(source, tmp_path / "out.mkv", codec="ffv1")
    assert failed(compare(describe(str(source), "in"), describe(str(tmp_path / "out.mkv"), "out"))) == {}
