"""The bench measures what it says, each way on the same pictures."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from jobs.cli import app


def test_images_compares_five_ways_and_reports_memory():
    ended = CliRunner().invoke(
        app, ["bench", "images", "--model", "nearest-x2", "--count", "6", "--width", "32", "--height", "24", "--rounds", "1",
              "--latency-ms", "1", "--memory", "40", "--json"],
    )  # fmt: skip
    assert ended.exit_code == 0, ended.output
    result = json.loads(ended.output)
    assert [row["way"] for row in result["rows"]] == [
        "bare model", "plain loop", "swinir images", "swinir images, over HTTP", "the same, 1 ms later",
    ]  # fmt: skip
    assert all(row["images_per_s"] > 0 and row["output_mpx_per_s"] > 0 for row in result["rows"])
    assert result["rows"][0]["of_bare"] == result["rows"][1]["of_plain"] == 1
    assert min(result["memory"].values()) > 0
