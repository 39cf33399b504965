"""The ``swinir`` command: one subcommand per job, one-line errors, exit codes that mean something."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys

import typer

from jobs.bench import bench
from jobs.compare import compare
from jobs.degrade import degrade
from jobs.demo import demo
from jobs.evaluate import evaluate
from jobs.images import images
from jobs.inspect import inspect
from jobs.models import models
from jobs.train import train
from jobs.video import video
from pipeline.errors import UpscaleError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Upscale video and image archives with SwinIR on Ray.\n\n"
    "Exit codes: 0 done and verified; 2 usage or preflight; 3 finished, some items failed and are listed; "
    "4 failed, the same command resumes; 130 interrupted, the same command resumes.",
)
app.command("video")(video)
app.command("inspect")(inspect)
app.command("compare")(compare)
app.command("images")(images)
app.command("models")(models)
app.command("eval")(evaluate)
app.command("train")(train)
app.command("degrade")(degrade)
app.add_typer(bench, name="bench")
app.command("demo")(demo)


def main() -> None:
    """Run the command line; errors of ours end in one line and their exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name need not be text; standard error does so anyway
    try:
        app()
    except UpscaleError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from where it was", file=sys.stderr)
        sys.exit(130)
    except MemoryError:
        print("error: out of memory; try a smaller --tile or fewer --workers", file=sys.stderr)
        sys.exit(4)
    except BrokenPipeError:
        # The reader of our output has gone; nothing can be told to it any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        print(f"error: {error.filename}: {error.strerror}; use a shorter one", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
