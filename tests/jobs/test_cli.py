"""The command line as a user meets it: help, refusals in one line, and real runs with Ray in processes of their own."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from jobs import cli
from tests.media import numbers, payloads, write_video

FAST = ("--model", "nearest-x2", "--preset", "ultrafast")


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def swinir(monkeypatch, capsys):
    """Run a command in this process."""

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["swinir", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return Ended(stop.value.code or 0, *capsys.readouterr())

    return run


@pytest.fixture
def clip(tmp_path):
    return write_video(tmp_path / "in.mp4", 60, options={"g": "12"}, with_audio=True)


def start(*arguments: object) -> subprocess.Popen[str]:
    """Run a command in a process group of its own, as a shell does, with a Ray of its own."""
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> Ended:
    out, err = process.communicate(timeout=300)
    return Ended(process.returncode, out, err)


@pytest.mark.parametrize("command", [(), ("video",), ("models",), ("eval",), ("train",), ("demo",)], ids=" ".join)
def test_every_command_explains_itself(swinir, command):
    ended = swinir(*command, "--help")
    assert ended.code == 0
    assert "Usage" in ended.out
    assert ended.err == ""


@pytest.mark.parametrize(
    "words",
    [
        ("video", "{clip}", "{name:a>244}.mp4"), ("video", "{clip}", "{name:a>260}/x.mp4"),
        ("video", "{name:a>260}.mp4", "x.mp4"),
        ("images", "{folder}", "{name:a>260}"), ("images", "{name:a>260}", "out"), ("compare", "{name:a>260}", "{clip}"),
        ("eval", "{name:a>260}"), ("degrade", "{folder}", "{name:a>260}"),
    ],
)  # fmt: skip
def test_a_name_that_no_file_can_have_is_one_line(swinir, clip, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    ended = swinir(*(word.format(clip=clip, folder=clip.parent, name="a") for word in words))
    *_, last = ended.err.splitlines()
    assert ended.code == 2
    assert last.startswith("error: ")
    assert "File name too long" in last or "choose one of at most 243" in last
    assert "Traceback" not in ended.err


def test_the_help_says_what_the_exit_codes_mean(swinir):
    words = " ".join(swinir("--help").out.split())
    assert all(f"{code} " in words for code in (0, 2, 3, 4, 130))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--model", "lightwight-x2"), "did you mean 'lightweight-x2'?"),
        (("--codec", "h264"), "'libx265'"),
        (("--crf", "99"), "less than or equal to 63"),
        (("--crf", "52"), "libx264 takes a crf from 0 to 51"),
        (("--codec", "ffv1", "--crf", "1"), "takes no crf"),
        (("--tile", "1"), "tile"),
        (("--stream", "7"), "stream 7 is not a video stream"),
        (("--config", "none.yaml"), "cannot read none.yaml"),
    ],
)
def test_a_wrong_setting_is_one_line_and_nothing_is_written(swinir, clip, change, message):
    ended = swinir("video", clip, clip.with_name("out.mp4"), *FAST, *change, "--dry-run")
    assert ended.code == 2
    assert [line for line in ended.err.splitlines() if line != "probing"] == [ended.err.splitlines()[-1]]
    assert ended.err.splitlines()[-1].startswith("error: ")
    assert message in ended.err
    assert ended.out == ""
    assert os.listdir(clip.parent) == ["in.mp4"]


@pytest.mark.parametrize(
    ("source", "destination", "message"),
    [
        ("none.mp4", "out.mp4", "no such file"),
        ("empty.mp4", "out.mp4", "empty.mp4: "),
        ("in.mp4", "out.xyz", "unknown ending '.xyz'"),
    ],
)
def test_a_wrong_file_is_one_line(swinir, clip, monkeypatch, source, destination, message):
    monkeypatch.chdir(clip.parent)
    Path("empty.mp4").touch()
    ended = swinir("video", source, destination, *FAST, "--dry-run")
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    assert ended.err.startswith("error: ")
    assert message in ended.err


def test_an_option_that_is_none_is_refused(swinir, clip):
    ended = swinir("video", clip, clip.with_name("out.mp4"), "--modle", "nearest-x2")
    assert ended.code == 2
    assert "--model" in ended.err
    assert "Traceback" not in ended.err


def test_an_unknown_key_of_a_file_is_named_with_the_nearest(swinir, clip):
    settings = clip.with_name("run.yaml")
    settings.write_text("segment_second: 5\n")
    ended = swinir("video", clip, clip.with_name("out.mp4"), "--config", settings)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == f"error: unknown key 'segment_second' in {settings}; did you mean 'segment_seconds'?\n"


def test_options_win_over_the_file(swinir, clip):
    settings = clip.with_name("run.yaml")
    settings.write_text("model: nearest-x2\ncodec: ffv1\n")
    command = ("video", clip, clip.with_name("out.mkv"), "--config", settings, "--dry-run", "--json")
    assert json.loads(swinir(*command).out.splitlines()[-1])["size"] == "64x48 -> 128x96"
    plan = json.loads(swinir(*command, "--model", "nearest-x3").out.splitlines()[-1])
    assert plan["size"] == "64x48 -> 192x144"
    assert plan["encoder"].startswith("ffv1 ")


def test_dry_run_shows_the_plan_and_writes_nothing(swinir, clip):
    ended = swinir("video", clip, clip.with_name("out.mkv"), *FAST, "--dry-run")
    assert ended.code == 0
    for words in ("64x48 -> 128x96", "60", "libx264 yuv420p", "1 audio aac: copy", "256 on cpu"):
        assert words in ended.out
    assert os.listdir(clip.parent) == ["in.mp4"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("out.mkv", "--preview", "2"), "give one of them"),
        (("in.mp4",), "is the source itself"),
        (("",), "the destination is '', which names nothing"),
        (("notes.mkv",), "was not made by this program"),
        (("none/out.mkv",), "is not a folder"),
        pytest.param(
            ("out.mkv", "--device", "cuda"),
            "no CUDA device",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU"),
        ),
    ],
)
def test_dry_run_refuses_what_the_job_would(swinir, clip, monkeypatch, options, message):
    monkeypatch.chdir(clip.parent)
    Path("notes.mkv").write_text("precious")
    ended = swinir("video", "in.mp4", *options, *FAST, "--dry-run")
    assert ended.code == 2
    assert message in ended.err
    assert sorted(os.listdir()) == ["in.mp4", "notes.mkv"]


@pytest.mark.parametrize(
    ("report", "message"),
    [
        ("in.mp4", "is the source or the destination"),
        ("link.mp4", "is the source or the destination"),
        ("out.mkv", "is the source or the destination"),
        ("notes.json", "is there and is no report"),
        (".", "must name a file"),
        ("none/report.json", "must name a file"),
    ],
)
def test_a_report_takes_no_other_files_place(swinir, clip, monkeypatch, report, message):
    monkeypatch.chdir(clip.parent)
    Path("link.mp4").symlink_to("in.mp4")
    Path("notes.json").write_text("[1]")
    before = {path: path.read_bytes() for path in Path().iterdir()}
    ended = swinir("video", "in.mp4", "out.mkv", *FAST, "--dry-run", "--report", report)
    assert (ended.code, len(ended.err.splitlines())) == (2, 1)
    assert message in ended.err
    assert {path: path.read_bytes() for path in Path().iterdir()} == before
    Path("mine.json").touch()
    for _ in range(2):
        assert swinir("video", "in.mp4", "out.mkv", *FAST, "--dry-run", "--report", "mine.json").code == 0
    assert swinir("video", "in.mp4", "out.mkv", *FAST, "--dry-run", "--report", os.devnull).code == 0
    assert not Path(os.devnull).is_file()
    assert json.loads(Path("mine.json").read_text())["frames"] == 60


def test_a_report_that_cannot_be_written_is_one_line_and_no_traceback(swinir, clip):
    ended = swinir("video", clip, clip.with_name("out.mkv"), *FAST, "--dry-run", "--report", "/dev/full")
    assert (ended.code, ended.err.splitlines()[-1]) == (
        4,
        "error: --report /dev/full cannot be written: No space left on device; name another file",
    )


def test_encoders_do_not_print_about_themselves(clip):
    ended = finish(
        start("video", clip, clip.with_name("out.mp4"), *FAST[:2], "--codec", "libsvtav1", "--preset", "12", "--dry-run")
    )
    assert (ended.code, ended.err) == (0, "probing\n")


def test_the_demonstration_takes_the_place_of_an_earlier_one_alone(swinir, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("mine")
    (tmp_path / "clips/clip01").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    for folder, model, message in (
        ("mine", "nearest-x2", "holds thesis.txt"), ("mine", "nosuch", "unknown model"),
        ("clips", "nearest-x2", "holds clip01"),
        ("mine/thesis.txt", "nearest-x2", "a file or a link"), ("link", "nearest-x2", "a file or a link"),
    ):  # fmt: skip
        ended = swinir("demo", tmp_path / folder, "--model", model)
        assert (ended.code, len(ended.err.splitlines())) == (2, 1)
        assert message in ended.err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    assert (tmp_path / "clips/clip01").is_dir()


def test_models_as_json(swinir):
    ended = swinir("models", "--json")
    rows = {row["model"]: row for row in json.loads(ended.out)}
    assert rows["lightweight-x2"]["scale"] == 2
    assert rows["nearest-x2"]["weights"] == "none needed"


def test_a_video_with_ray_and_a_second_time(clip):
    target = clip.with_name(os.fsdecode(b"out\xe9.mp4"))  # no UTF-8
    command = ("video", clip, target, *FAST, "--json")

    ended = finish(start(*command))

    assert (ended.code, ended.err) == (0, "")
    lines = [json.loads(line) for line in ended.out.splitlines()]
    report = lines[-1]
    assert [line["phase"] for line in lines if "total" in line and "frames" not in line] == [
        "probing", "upscaling", "joining", "verifying",
    ]  # fmt: skip
    assert (report["frames_in"], report["frames_out"], report["frames_processed"]) == (60, 60, 60)
    assert report == json.loads(target.with_name(f"{target.name}.report.json").read_text())
    assert numbers(target, scale=2) == list(range(60))
    assert payloads(target, "audio") == payloads(clip, "audio")
    assert sorted(os.listdir(clip.parent)) == ["in.mp4", target.name, f"{target.name}.report.json"]

    before = target.stat()
    again = finish(start(*command))

    assert again.code == 0
    assert json.loads(again.out.splitlines()[-1]) == {**report, "frames_processed": 0, "segments_reused": report["segments"]}
    assert target.stat() == before


def test_sigterm_stops_at_once_in_one_line_and_the_same_command_goes_on(tmp_path):
    source = write_video(tmp_path / "in.mp4", 100, size=(64, 48))
    command = ("video", source, tmp_path / "out.mp4", "--preset", "ultrafast", "--segment-seconds", "1", "--json")
    temporary = set(Path(tempfile.gettempdir()).glob("swinir-*"))
    terminated = start(*command)
    wait_for_commit(terminated, tmp_path)
    terminated.terminate()
    ended = finish(terminated)
    assert ended.code == 130
    assert len(ended.err.splitlines()) == 1
    assert "the same command goes on" in ended.err
    assert not (tmp_path / "out.mp4").exists()
    assert set(Path(tempfile.gettempdir()).glob("swinir-*")) <= temporary

    report = json.loads(finish(start(*command)).out.splitlines()[-1])
    assert (report["exit_code"], report["frames_out"]) == (0, 100)
    assert 0 < report["segments_reused"] < report["segments"]
    assert sorted(os.listdir(tmp_path)) == ["in.mp4", "out.mp4", "out.mp4.report.json"]


@pytest.mark.slow
def test_b1_killed_half_way_the_same_command_gives_the_same_bytes(tmp_path):
    source = write_video(tmp_path / "in.mp4", 200, size=(480, 272), options={"g": "12"}, with_audio=True)
    (tmp_path / "whole").mkdir()
    options = ("--model", "nearest-x2", "--segment-seconds", "1", "--json")
    command = ("video", source, tmp_path / "out.mp4", *options)
    assert finish(start("video", source, tmp_path / "whole" / "out.mp4", *options)).code == 0

    killed = start(*command)
    wait_for_commit(killed, tmp_path)
    os.killpg(killed.pid, signal.SIGKILL)
    finish(killed)
    assert not (tmp_path / "out.mp4").exists()

    ended = finish(start(*command))

    assert (ended.code, ended.err) == (0, "")
    report = json.loads(ended.out.splitlines()[-1])
    assert 0 < report["segments_reused"] < report["segments"]
    assert report["frames_processed"] < report["frames_out"] == 200
    assert sha256(tmp_path / "out.mp4") == sha256(tmp_path / "whole" / "out.mp4")
    assert sorted(os.listdir(tmp_path)) == ["in.mp4", "out.mp4", "out.mp4.report.json", "whole"]


def wait_for_commit(command: subprocess.Popen[str], folder: Path) -> None:
    deadline = time.monotonic() + 120
    while not list(folder.glob("out.mp4.swinir/*/commits/*")):
        assert command.poll() is None, finish(command)
        assert time.monotonic() < deadline
        time.sleep(0.02)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
