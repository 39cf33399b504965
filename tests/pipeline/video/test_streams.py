"""Every stream of the source is in the result: statements D1 and D6."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest
from av.stream import Disposition

from pipeline.errors import MediaError
from pipeline.video.compare import compare
from pipeline.video.describe import describe
from pipeline.video.labels import title_of
from tests.media import numbers
from tests.sources import Builder, cover_png, digests, packet_times, rich_mkv


def test_d1_all_present_packet_payload_hash_equal_pts_equal(tmp_path: Path, job) -> None:
    source, result = rich_mkv(tmp_path / "in.mkv"), tmp_path / "out.mkv"

    report = job(source, result)

    kinds = ["video", "audio", "audio", "subtitle", "subtitle", "cover", "attachment", "attachment"]
    assert [(s["type"], s["action"]) for s in report["streams"]] == list(zip(kinds, ["upscale"] + ["copy"] * 7, strict=True))
    assert digests(result)[1:] == digests(source)[1:]
    assert all(hashes for _, hashes in digests(result))
    for index in range(1, 5):
        assert packet_times(result, index) == packet_times(source, index)
    assert numbers(result, scale=2) == list(range(50))


def test_d1_languages_titles_dispositions_chapters_and_tags_go_along_and_stale_statistics_do_not(tmp_path: Path, job) -> None:
    source, result = rich_mkv(tmp_path / "in.mkv"), tmp_path / "out.mkv"
    job(source, result)
    with av.open(str(source)) as old, av.open(str(result)) as new:
        assert new.metadata["title"] == "Ein Film"
        assert new.metadata["ARTIST"] == "Jemand"
        chapters = [(c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"]["title"]) for c in new.chapters()]
        assert chapters == [(0, Fraction(4, 5), "Anfang"), (Fraction(4, 5), 2, "Ende")]
        # copy also the disposition for the re-encoded video stream
        assert [s.disposition for s in new.streams] == [s.disposition for s in old.streams]
        assert [s.metadata.get("language") for s in new.streams] == ["jpn", "deu", "eng", "deu", "eng", None, None, None]
        assert [s.metadata.get("title") for s in new.streams][:3] == ["Hauptfilm", "Deutsch", "Commentary"]
        assert [s.metadata.get("filename") for s in new.streams][5:] == ["cover.png", "a.ttf", "b.ttf"]
        stale = [key for s in new.streams for key in s.metadata if key.startswith(("BPS", "NUMBER_OF", "_STATISTICS", "ENC"))]
        assert stale == []
        # The muxer's own, of the result.
        assert {s.metadata.get("DURATION") for s in list(new.streams)[:2]} != {None}


@pytest.mark.parametrize("before", ["mkv", "mp4"])
@pytest.mark.parametrize("after", ["mkv", "mp4"])
def test_d1_attached_pic_must_not_be_picked_as_the_video_and_stays_cover_art(tmp_path: Path, job, before, after) -> None:
    source = Builder(tmp_path / f"in.{before}").cover().video(10).write()
    result = tmp_path / f"out.{after}"
    job(source, result)
    assert numbers(result, scale=2) == list(range(10))
    with av.open(str(result)) as container:
        (cover,) = [v for v in container.streams.video if v.disposition & Disposition.attached_pic]
        assert [bytes(packet) for packet in container.demux(cover) if packet.size] == [cover_png()]


def test_d5_audio_only_cover_is_refused_since_there_is_no_video(tmp_path: Path, job) -> None:
    source = Builder(tmp_path / "in.mkv").sound("aac").cover().write()
    with pytest.raises(MediaError, match="holds no video stream"):
        job(source, tmp_path / "out.mkv")


@pytest.mark.parametrize("after", ["mkv", "mp4"])
@pytest.mark.parametrize("chosen", [None, 0])
def test_d1_of_several_videos_one_is_upscaled_and_the_others_copied_in_their_order(tmp_path: Path, job, after, chosen) -> None:
    source = Builder(tmp_path / "in.mkv").video(20).sound("aac", 0.8).video(30, disposition=Disposition.default).write()
    result = tmp_path / f"out.{after}"

    report = job(source, result, stream=chosen)

    upscaled, copied = (2, 0) if chosen is None else (0, 2)
    assert [s["action"] == "upscale" for s in report["streams"]] == [index == upscaled for index in range(3)]
    with av.open(str(result)) as container:
        assert [s.type for s in container.streams] == ["video", "audio", "video"]
        assert [container.streams[upscaled].width, container.streams[copied].width] == [128, 64]
        frames = [f for packet in container.demux(container.streams[copied]) for f in packet.decode()]
    assert len(frames) == (20 if copied == 0 else 30)
    if after == "mkv":
        assert digests(result)[copied] == digests(source)[copied]
    times = packet_times(source, copied)
    assert [round(1000 * t) for t in packet_times(result, copied)] == [round(1000 * t) for t in times]


def test_d1_a_stream_to_choose_that_is_no_video_is_refused_and_those_that_are_named(tmp_path: Path, job) -> None:
    source = Builder(tmp_path / "in.mkv").video(5).sound("aac", 0.2).write()
    with pytest.raises(MediaError, match="stream 1 is not a video stream to upscale; those are: 0"):
        job(source, tmp_path / "out.mkv", stream=1)


def test_d1_the_best_of_a_real_file_with_two_videos(tmp_path: Path, shared: Path, job) -> None:
    source = shared / "data/video/multi_stream_2v2a2s_nasa.mp4"
    report = job(source, tmp_path / "out.mp4", model="identity")
    assert [s["action"] for s in report["streams"]] == ["copy", "copy", "copy", "upscale", "copy", "copy"]
    before, after = digests(source), digests(tmp_path / "out.mp4")
    assert [after[i] for i in (0, 1, 2, 4, 5)] == [before[i] for i in (0, 1, 2, 4, 5)]


def test_d1_of_two_default_videos_only_the_upscaled_one_stays_a_default_so_that_players_show_it(tmp_path: Path, job) -> None:
    both = Disposition.default
    source = Builder(tmp_path / "in.mkv").video(20, disposition=both).sound("aac", 0.8).video(30, disposition=both).write()
    job(source, tmp_path / "out.mkv", stream=2)
    with av.open(str(tmp_path / "out.mkv")) as container:
        small, _, upscaled = container.streams
        assert not small.disposition & Disposition.default
        assert upscaled.disposition & Disposition.default
        assert container.streams.best("video") is upscaled
    checks = {check.name: check for check in compare(describe(str(source), "in"), describe(str(tmp_path / "out.mkv"), "out"))}
    assert checks["video 0 disposition"].status == "ok"


@pytest.mark.parametrize("name", ["subs_srt_ac3.mkv", "subs_pgs_ac3.mkv"])
def test_d1_real_subtitles_and_sound_are_copied(tmp_path: Path, shared: Path, job, name: str) -> None:
    source = shared / "data/video" / name
    job(source, tmp_path / "out.mkv", model="identity")
    assert digests(tmp_path / "out.mkv")[1:] == digests(source)[1:]
    for index in (1, 2):
        assert packet_times(tmp_path / "out.mkv", index) == packet_times(source, index)


def test_d6_data_is_copied_where_legal_else_listed_in_the_report_as_dropped(tmp_path: Path, job) -> None:
    source = Builder(tmp_path / "in.ts").video(25).data("klv", [b"telemetry %d" % i for i in range(4)]).write()

    kept = job(source, tmp_path / "out.ts")
    dropped = job(source, tmp_path / "out.mkv")

    assert kept["streams"][1]["action"] == "copy"
    assert digests(tmp_path / "out.ts")[1] == digests(source)[1]
    assert dropped["streams"][1]["action"] == "drop"
    assert dropped["streams"][1]["reason"].startswith("matroska cannot hold it")
    assert any(line.startswith("stream 1 (data, klv): drop") for line in dropped["warnings"])


@pytest.mark.parametrize("after", ["mkv", "mp4", "mov"])
def test_d6_what_nobody_knows_is_listed_as_dropped_for_a_real_phone(tmp_path: Path, shared: Path, job, after: str) -> None:
    report = job(shared / "data/video/rotate90_ios_phone.mov", tmp_path / f"out.{after}", model="identity")
    assert [s["action"] for s in report["streams"]] == ["upscale", "copy", "drop", "drop"]
    assert len([line for line in report["warnings"] if "FFmpeg does not know what it is" in line]) == 2
    with av.open(str(tmp_path / f"out.{after}")) as container:
        tags = {key.lower(): value for key, value in container.metadata.items()}
        assert tags["com.apple.quicktime.model"] == "iPhone 6s"


def test_d6_tags_that_the_container_cannot_hold_are_listed(tmp_path: Path, job) -> None:
    source = Builder(tmp_path / "in.mkv").video(10, title="Hauptfilm").chapters().tags(title="Ein Film", MOOD="dark").write()
    said = job(source, tmp_path / "out.mp4")["warnings"]
    assert said == ["tags of the file that mp4 cannot hold: MOOD"]
    said = job(source, tmp_path / "out.ts")["warnings"]
    assert said[0] == "tags of the file that mpegts cannot hold: MOOD, title"
    assert any("chapters" in line for line in said)
    assert job(source, tmp_path / "out.mkv")["warnings"] == []


@pytest.mark.parametrize("named", ["handler_name", "HANDLER_NAME"])
def test_d1_what_an_mp4_names_the_handler_of_a_track_is_its_title(tmp_path: Path, job, named: str) -> None:
    source = tmp_path / ("in.mp4" if named == "handler_name" else "in.mkv")
    tags = [{named: name} for name in ("Camera A", "SoundHandler", "Mic/Aux")]
    Builder(source).video(10, **tags[0]).sound("aac", 0.4, **tags[1]).sound("aac", 0.4, **tags[2]).write()
    for ending, title in ((".mkv", "title"), (".mp4", "handler_name")):
        result = tmp_path / f"out{ending}"
        assert job(source, result)["warnings"] == []
        with av.open(str(result)) as container:
            names = [stream.metadata.get(title) for stream in container.streams]
        assert names == ["Camera A", None if ending == ".mkv" else "SoundHandler", "Mic/Aux"]
        checks = {check.name: check.status for check in compare(*(describe(str(path), "") for path in (source, result)))}
        assert [checks[f"{stream} title"] for stream in ("video 0", "audio 1", "audio 2")] == ["ok", "n/a", "ok"]
    said = job(source, tmp_path / "out.ts")["warnings"]
    assert "tags of stream 2 that mpegts cannot hold: title" in said
    assert not [line for line in said if "stream 1 that" in line]


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("VideoHandler", None), ("SubtitleHandler", None), ("SoundHandle", None), ("MetadHandle", None), ("", None),
        ("Core Media Audio", None), ("Apple Video Media Handler", None), ("#Mainconcept MP4 Sound Media Handler", None),
        ("GPAC ISO Video Handler", None), ("L-SMASH Audio Handler", None), ("GoPro AVC  ", None), ("\x1fDJI AVC", None),
        ("ISO Media file produced by Google Inc. Created on: 01/01/2020.", None), ("Video Track", None), ("vide", None),
        ("Desktop Audio", "Desktop Audio"), ("Dog Handler", "Dog Handler"), ("Video 2", "Video 2"),
    ],
)  # fmt: skip
def test_a_handlers_name_that_any_file_may_have_is_no_title(name: str, title: str | None) -> None:
    assert title_of({"handler_name": name}) == title
    assert title_of({"handler_name": name, "name": "Main"}) == "Main"


def test_d6_what_a_container_cannot_call_a_stream_is_listed(tmp_path: Path, job) -> None:
    forced = Disposition.default | Disposition.comment
    source = (
        Builder(tmp_path / "in.mkv").video(10, disposition=Disposition.default).sound("aac", 0.4, disposition=forced).write()
    )
    assert "stream 1 is no more called what mov cannot say: comment" in job(source, tmp_path / "out.mov")["warnings"]
    job(source, tmp_path / "out.ts")
    checks = compare(*(describe(str(path), "") for path in (source, tmp_path / "out.ts")))
    assert {check.name: check.status for check in checks}["video 0 disposition"] == "n/a"
    assert job(source, tmp_path / "out.mkv")["warnings"] == []


@pytest.mark.parametrize("codec", ["aac", "libopus"])
def test_d6_priming_that_a_transport_stream_cannot_hide_is_said(tmp_path: Path, job, codec: str) -> None:
    source = Builder(tmp_path / "in.mkv").video(10).sound(codec, 0.4).write()
    said = job(source, tmp_path / "out.ts")["warnings"]
    assert any("stream 1: its first" in line and "mpegts cannot hide them" in line for line in said)


def test_d6_tags_and_chapters_that_images_cannot_hold_are_listed(tmp_path: Path, job) -> None:
    source = Builder(tmp_path / "in.mkv").video(10, title="Hauptfilm").chapters().tags(title="Ein Film").write()
    for destination in (tmp_path / "out.gif", f"{tmp_path}/out/"):
        said = job(source, destination, preset=None)["warnings"]
        assert "tags of the file that images cannot hold: title" in said
        assert any(line.startswith("tags of stream 0") and "title" in line for line in said)
        assert any(line.startswith("chapters that images cannot hold: ") for line in said)


def test_d6_a_language_and_a_date_that_the_container_cannot_hold_are_listed(tmp_path: Path, job) -> None:
    source = Builder(tmp_path / "in.mp4").video(10, language="deu").tags(creation_time="2020-01-02T03:04:05.000000Z").write()
    said = job(source, tmp_path / "out.ts")["warnings"]
    assert "tags of the file that mpegts cannot hold: creation_time" in said
    assert "tags of stream 0 that mpegts cannot hold: language" in said
    assert job(source, tmp_path / "out.mkv")["warnings"] == []
