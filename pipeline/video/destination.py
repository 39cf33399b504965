"""Where a result goes: one file, or one image per frame; whether it is there, whose it is, and how it gets there."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from pipeline.config import VideoConfig
from pipeline.errors import ConfigError
from pipeline.inputs import identify_all
from pipeline.preflight import refuse_nameless
from pipeline.storage import Store, local_path, normal_url, split_url
from pipeline.units import as_json
from pipeline.video import streams
from pipeline.video.labels import telling_tags
from pipeline.video.numbering import PLACE, TIMES_NAME, file_name, pattern_of
from pipeline.video.probe import choose_video_stream, open_media

NAME_BYTES = 255  # of one name on every common file system
FOLDER_PATTERN = "%06d.png"
PICTURES_ONLY = {"image2": "png", "gif": "gif"}  # formats that hold nothing but one video stream, with its codec
PUBLISHING = "publishing"  # in the work folder: what lies at the destination without a report is of this job
REDONE = "redone"  # in the work folder: the job that --fresh has begun again, though its result may be there
WORK_KEYS = re.compile(rf"({PUBLISHING}|{REDONE})$|probe-|scratch/|[0-9a-f]{{16}}/")  # what a work folder holds


class Destination(Protocol):
    """``store`` and ``name`` say where report and work folder lie: both are named after the result and lie beside it."""

    @property
    def url(self) -> str: ...
    @property
    def store(self) -> Store: ...
    @property
    def name(self) -> str: ...

    def holds(self, report: dict[str, Any]) -> bool:
        """Whether the result that a report tells of is still there."""

    def in_the_way(self, report: dict[str, Any] | None) -> str:
        """What would be replaced and is not, or is no more, what the report there tells of; "" for nothing."""

    def publish(self, made: Path, report: dict[str, Any], work: Store) -> None:
        """Put the result of this path and its report in place."""


def destination_of(url: str) -> Destination:
    """Raises ConfigError where ``url`` can name no result."""
    path = local_path(url)
    longest = NAME_BYTES - len(report_name(""))
    if path is not None and (size := len(os.fsencode(os.path.basename(path)))) > longest:
        raise ConfigError(f"{url}: a name of {size} bytes; choose one of at most {longest}, as its report has a longer one")
    if url.endswith("/") or (path is not None and os.path.isdir(path)):
        store, name = split_url(url.rstrip("/")) if path is None else (Store(os.path.dirname(path)), os.path.basename(path))
        return FrameFiles(url, store, name, f"{name}/", FOLDER_PATTERN)
    store, name = split_url(url)
    if pattern_of(url):
        return FrameFiles(url, store, name, "", name)
    return OneFile(url, store, name)


def format_of(url: str) -> str:
    """The container format that a destination asks for; "image2", FFmpeg's word, for images."""
    destination = destination_of(url)
    if not isinstance(destination, FrameFiles):
        return streams.output_format(url)
    if not destination.pattern.endswith(".png"):
        raise ConfigError(f"{url}: images are written as .png; name them so, or a folder with a / at its end")
    return "image2"


def config_for(config: VideoConfig, container_format: str, url: str) -> VideoConfig:
    """The settings with the one codec of a format that holds no other. ConfigError where an option asks for another."""
    codec = PICTURES_ONLY.get(container_format)
    if codec is None and config.codec in PICTURES_ONLY.values():
        raise ConfigError(
            f"{url}: --codec {config.codec} is for {'a folder/' if config.codec == 'png' else '.gif'} destinations"
        )
    if codec is None or config.codec == codec:
        return config
    plain = VideoConfig()
    for key in ("codec", "crf", "preset"):
        if key in config.model_fields_set and getattr(config, key) != getattr(plain, key):
            raise ConfigError(f"{url} is made by {codec}, which takes no --{key} {getattr(config, key)}; leave that out")
    pix_fmt = config.pix_fmt if "pix_fmt" in config.model_fields_set else None
    return VideoConfig(**config.model_dump() | {"codec": codec, "crf": None, "preset": None, "pix_fmt": pix_fmt})


def report_name(name: str) -> str:
    return f"{name}.report.json"


def read_report(store: Store, name: str) -> dict[str, Any] | None:
    try:
        report = json.loads(store.read(report_name(name)))
    except (FileNotFoundError, ValueError):
        return None
    return report if isinstance(report, dict) else None


def finished_report(destination: Destination, job_id: str) -> dict[str, Any] | None:
    """The report of the same job, where its result is still there as it was."""
    report = read_report(destination.store, destination.name)
    return report if report and report.get("job") == job_id and destination.holds(report) else None


def is_redone(work: Store, job_id: str) -> bool:
    """Whether --fresh has begun the job again, and it has not finished since."""
    return work.exists(REDONE) and work.read(REDONE) == job_id.encode()


def work_of(destination: Destination) -> Store:
    """The folder for the state of a job until its result is there."""
    return Store(f"{destination.store.url}/{destination.name}.swinir")


def refuse_foreign(destination: Destination, work: Store, overwrite: bool) -> None:
    """Never write over a file that this program did not make, or that was changed since, nor delete one in the work folder."""
    folder = local_path(work.url)
    if folder is not None and Path(folder).is_file():
        raise ConfigError(f"{work.url} is a file, where this job would keep its state; move it, or choose another destination")
    if foreign := foreign_in(work):
        raise ConfigError(f"{work.url_of(foreign)} was not made by this program; move it, or choose another destination")
    if overwrite or work.exists(PUBLISHING):
        return
    report, name = read_report(destination.store, destination.name), report_name(destination.name)
    if not (report and "job" in report) and destination.store.exists(name):
        raise ConfigError(
            f"{destination.store.url_of(name)} is no report of this program; pass --overwrite or choose another name"
        )
    if found := destination.in_the_way(report):
        raise ConfigError(f"{found} exists and was not made by this program; pass --overwrite or choose another name")


def foreign_in(work: Store) -> str | None:
    """A file that no job keeps in its work folder."""
    return next((key for key in work.list() if not WORK_KEYS.match(key)), None)


def clear_state(work: Store) -> None:
    """Remove what a job that was killed at its very end has left; what another has begun is not its."""
    if work.exists(PUBLISHING) and foreign_in(work) is None:
        work.delete_all("")


def write_report(destination: Destination, report: dict[str, Any]) -> None:
    destination.store.write(report_name(destination.name), as_json(report))


@dataclass(frozen=True)
class OneFile:
    """A video file, or a GIF."""

    url: str
    store: Store
    name: str

    def holds(self, report: dict[str, Any]) -> bool:
        return self.store.exists(self.name) and self.store.size_bytes(self.name) == report.get("size_bytes")

    def in_the_way(self, report: dict[str, Any] | None) -> str:
        return self.url if self.store.exists(self.name) and not (report and self.holds(report)) else ""

    def publish(self, made: Path, report: dict[str, Any], work: Store) -> None:
        work.write(PUBLISHING, b"")
        write_report(self, report)
        self.store.take(made, self.name)


@dataclass(frozen=True)
class FrameFiles:
    """Numbered images from 1 on and a table of their times: in a folder of their own (``prefix`` "out/"), or among other files.

    A local folder with nothing else in it appears, or is replaced, as a whole. Elsewhere files come one by one.
    """

    url: str
    store: Store
    name: str
    prefix: str
    pattern: str

    @property
    def folder(self) -> str:
        return f"{self.store.url}/{self.name}" if self.prefix else self.store.url

    @property
    def times_name(self) -> str:
        return TIMES_NAME if self.prefix else f"{self.name}.{TIMES_NAME}"

    def image_name(self, number: int) -> str:
        return PLACE.sub(lambda place: f"{number:0{int(place[1] or 0)}d}", self.pattern, count=1)

    def _found(self) -> Iterator[tuple[str, int, bool]]:
        """Name and size of the files in the folder, and whether it is one that this destination makes."""
        before, after = PLACE.split(self.pattern)[0], PLACE.split(self.pattern)[-1]
        ours = re.compile(re.escape(before) + r"\d+" + re.escape(after))
        for entry in identify_all(self.folder):
            name = file_name(entry.url)
            yield name, entry.size_bytes, bool(ours.fullmatch(name)) or name == self.times_name

    def holds(self, report: dict[str, Any]) -> bool:
        found = {name: size for name, size, ours in self._found() if ours}
        count = report.get("frames_out", 0)
        whole = all(self.image_name(number) in found for number in range(1, count + 1)) and len(found) == count + 1
        return whole and sum(found.values()) == report.get("size_bytes")

    def in_the_way(self, report: dict[str, Any] | None) -> str:
        if not report:
            return next((f"{self.folder}/{name}" for name, _, ours in self._found() if ours or self.prefix), "")
        made = {self.image_name(number) for number in range(1, report.get("frames_out", 0) + 1)} | {self.times_name}
        found = {name for name, _, ours in self._found() if ours}
        if more := sorted(found - made):
            return f"{self.folder}/{more[0]}"
        return f"{self.folder}, with an image that was changed," if found == made and not self.holds(report) else ""

    def publish(self, made: Path, report: dict[str, Any], work: Store) -> None:
        work.write(PUBLISHING, b"")
        self.store.delete(report_name(self.name))
        folder = local_path(self.folder)
        if folder is not None and self.prefix and self._is_ours(Path(folder)):
            if Path(folder).exists():
                os.rename(folder, made.with_name("replaced"))
            os.rename(made, folder)
        else:
            names = sorted(os.listdir(made))
            for name, _, ours in self._found():
                if ours and name not in names:
                    self.store.delete(self.prefix + name)
            for name in names:
                self.store.upload(made / name, self.prefix + name)
        write_report(self, report)

    def _is_ours(self, folder: Path) -> bool:
        """Whether another folder may take its place: it leads to none, and holds nothing but what this destination makes."""
        if folder.is_symlink() or folder.is_mount():
            return False
        return not folder.exists() or {name for name, _, ours in self._found() if ours} == set(os.listdir(folder))


def check_places(source: str, url: str) -> None:
    """ConfigError where the destination is the source, or lies in no folder, or where one of them names nothing."""
    refuse_nameless(source, url)
    destination, read, written = destination_of(url), normal_url(source), normal_url(url)
    if isinstance(destination, FrameFiles):
        written = normal_url(destination.folder)
        if pattern_of(source) is not None:
            read = normal_url(source.rpartition("/")[0] or ".")
            # Two patterns in one folder are at peace as long as no name fits both.
            if not destination.prefix and PLACE.split(file_name(source))[::2] != PLACE.split(destination.pattern)[::2]:
                written = ""
    path = local_path(url)
    if read == written or (path is not None and written and os.path.realpath(read) == os.path.realpath(written)):
        raise ConfigError(f"{url} is the source itself; choose another destination")
    if path is not None and not Path(path).parent.is_dir():
        raise ConfigError(f"{Path(path).parent} is not a folder; create it first")


def pictures_only(media: str | BinaryIO, name: str, video_index: int | None) -> tuple[list[streams.StreamPlan], list[str]]:
    """What becomes of the streams of a source where the result holds pictures and nothing else: dropped, and listed.

    Also a line for each kind of tags, and for the chapters, that go with them.
    """
    with open_media(media, name) as container:
        video = choose_video_stream(container, name, video_index)
        lost = []
        for what, source in (("the file", container), (f"stream {video.index}", video)):
            if tags := telling_tags(source, container):
                lost.append(f"tags of {what} that images cannot hold: {', '.join(tags)}")
        if chapters := container.chapters():
            lost.append(f"chapters that images cannot hold: {len(chapters)}")
        plans = [
            streams.StreamPlan(stream.index, "video", streams.codec_of(stream), "upscale")
            if stream.index == video.index
            else streams.StreamPlan(
                stream.index, stream.type or "unknown", streams.codec_of(stream), "drop", "images hold none"
            )
            for stream in container.streams
        ]
        return plans, lost
