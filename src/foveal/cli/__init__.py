"""The command line: results on stdout, progress on stderr, exit code 2 and one sentence for user errors.

One file per group of commands. Heavy modules are imported inside the commands, so that `foveal --help` is
there at once.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from foveal.cli import (
    adapt,
    bench,
    evaluate,
    export,
    frontier,
    large,
    reproduce,
    search,
    segment,
    show,
    train,
    tune,
    video,
)
from foveal.cli.errors import CommandGroup, say

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # PyTorch reads it once: large tensors in huge pages
if "OMP_WAIT_POLICY" not in os.environ:  # waiting threads that spin for long take the cores of a busy machine
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")

app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Segmentation that looks closely only where it matters.",
)
segment.add_to(app)
large.add_to(app)
video.add_to(app)
adapt.add_to(app)
tune.add_to(app)
search.add_to(app)
export.add_to(app)
show.add_to(app)
evaluate.add_to(app)
train.add_to(app)
frontier.add_to(app)
bench.add_to(app)
reproduce.add_to(app)


@app.callback()
def foveal(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=lambda wanted: _version(wanted)
        ),
    ] = False,
) -> None:
    """Segmentation that looks closely only where it matters."""


def main() -> None:
    """Run the command line."""
    app(prog_name="foveal")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        say(f"foveal {version('foveal')}")
        raise typer.Exit
