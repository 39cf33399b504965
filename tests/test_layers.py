"""Imports point one way: jobs -> pipeline -> swinir, low modules know no higher ones, and two files know Ray."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline
import swinir

ROOT = Path(__file__).resolve().parents[1]

ALLOWED = {
    "swinir": {"swinir", "torch", "numpy", "safetensors", "PIL", "platformdirs", "filelock"},
    "pipeline": {
        "pipeline", "swinir", "torch", "numpy", "av", "pyarrow", "fsspec", "filelock", "PIL", "pydantic", "rich", "yaml",
    },
    "jobs": {"jobs", "pipeline", "swinir", "numpy", "PIL", "rich", "typer", "yaml"},
}  # fmt: skip

EXCEPTIONS = {
    **{f"swinir/gpu/{n}.py": {"triton"} for n in ("attention", "choice", "direct", "ends", "gelu", "kernels", "persistent")},
    "pipeline/cluster.py": {"ray"},
    # Not units that run apart from each other, but processes that step together: Ray Train, and a process group for each.
    "pipeline/training.py": {"ray"},
    # The bare model is measured beside what others make of it.
    "jobs/baseline.py": {"torch"}, "jobs/measure.py": {"torch", "openvino"}, "jobs/bench_reuse.py": {"torch"},
    "jobs/bench_training.py": {"torch"},
}  # fmt: skip

# Each module of pipeline/ imports only those before it.
ORDER = [
    "errors", "config", "retry", "folders", "storage", "inputs", "units", "ledger", "commands", "backlog", "pool", "scheduler",
    "worker", "driver", "stages", "preflight", "report", "local", "sizing", "cluster", "training",
    "dataset.patterns", "dataset.reading",
    "dataset.walking", "dataset.listing", "dataset.tar", "dataset.parquet", "dataset.sources", "dataset.ahead",
    "dataset.shards", "dataset.exif", "dataset.deep", "dataset.png", "dataset.picture", "dataset.segments", "dataset.colours",
    "dataset.animation", "dataset.metadata", "dataset.formats", "dataset.images", "dataset.pixels", "dataset.encoding",
    "dataset.hidden", "dataset.bands", "dataset.enlarge", "dataset.names", "dataset.index", "dataset.gone",
    "dataset.containers", "dataset.outputs", "dataset.sheet", "dataset.streamed", "dataset.known", "dataset.pending",
    "dataset.workload", "dataset.card", "dataset.superseded", "dataset.planning", "dataset.destination", "dataset.job",
    "dataset.preview", "video.cuts", "video.packing", "video.frames", "video.hdr", "video.header", "video.tags",
    "video.decoder", "video.combing", "video.cropping", "video.scenes", "video.times", "video.truncation", "video.timeline",
    "video.clock", "video.editlist", "video.fields", "video.matroska", "video.packets", "video.info", "video.integrity",
    "video.probe", "video.quicktime", "video.numbering", "video.sequence", "video.size", "video.turn", "video.colours",
    "video.plan", "video.gif", "video.slices", "video.encode", "video.priming", "video.subtitles", "video.labels",
    "video.streams", "video.losses", "video.interleave", "video.drymux", "video.description", "video.describe", "video.checks",
    "video.compare", "video.reader", "video.quality", "video.worn", "video.assemble", "video.destination", "video.pictures",
    "video.segment", "video.prepare", "video.job", "video.preview", "video.sample", "api",
]  # fmt: skip

# The folders of swinir/ that a module of one of them may import from, besides the modules beside the folders.
FOLDERS = {"cpu": {"cpu"}, "gpu": {"gpu"}, "train": {"train", "gpu"}, "": {"cpu", "gpu"}}

MODULES = sorted(path.relative_to(ROOT) for top in ALLOWED for path in (ROOT / top).rglob("*.py"))
each_module = pytest.mark.parametrize("path", MODULES, ids=str)


def imported(path: Path) -> set[str]:
    """The full names of all that a file imports, anywhere in it; ``from a import b`` counts as a and as a.b."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@each_module
def test_imports_follow_the_layers(path):
    more = EXCEPTIONS.get(path.as_posix(), set())
    extra = {name.partition(".")[0] for name in imported(path)} - ALLOWED[path.parts[0]] - sys.stdlib_module_names - more
    assert not extra, f"{path} may not import {', '.join(sorted(extra))}"


def test_every_module_of_the_pipeline_has_its_place():
    names = [name_of(path) for path in MODULES if path.parts[0] == "pipeline" and path.name != "__init__.py"]
    assert sorted(ORDER) == sorted(names)


@pytest.mark.parametrize("name", ORDER)
def test_low_modules_know_no_higher_ones(name):
    known = ORDER[: ORDER.index(name)]
    path = Path("pipeline", *name.split(".")).with_suffix(".py")
    higher = imported(path) & {f"pipeline.{other}" for other in ORDER if other not in known}
    assert not higher, f"{path} may not import {', '.join(sorted(higher))}"


@pytest.mark.parametrize("path", [path for path in MODULES if path.parts[0] == "swinir"], ids=str)
def test_inference_knows_no_training_and_a_processor_no_other(path):
    folder = path.parts[1] if len(path.parts) > 2 else ""
    others = {name.split(".")[1] for name in imported(path) if name.startswith("swinir.")} & FOLDERS.keys() - FOLDERS[folder]
    assert not others, f"{path} may not import from {', '.join(sorted(others))}"


@pytest.mark.parametrize("path", [path for path in MODULES if "video" in path.parts], ids=str)
def test_a_workload_takes_its_runner_as_an_argument(path):
    assert not imported(path) & {"pipeline.cluster", "pipeline.local"}


@pytest.mark.parametrize("package", ["swinir", "pipeline"])
def test_importing_a_package_loads_nothing_heavy(package):
    code = f"import sys, {package}; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in result.stdout.split()}
    assert not loaded & {"torch", "numpy", "av", "ray", "pyarrow", "fsspec", "pydantic", "rich", "PIL"}
    assert result.stderr == ""


@pytest.mark.parametrize("package", [pipeline, swinir])
def test_what_a_package_offers_is_found_by_completion_and_help(package):
    assert set(package.__all__) <= set(dir(package))


def name_of(path: Path) -> str:
    """``pipeline/video/plan.py`` -> ``video.plan``"""
    return ".".join(path.with_suffix("").parts[1:])
