"""What commands write: results as text and JSON; errors as one sentence, exit code 2, never a traceback.

All text passes `say`, all JSON `echo_json`: no name that somebody else chose commands the terminal.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from foveal.storage.names import shown

USER_ERROR = 2
MOST_SAID = 500
"""Characters of an error; a list of problems in a recipe is cut there too."""
STYLES = re.compile("(\x1b\\[(?:0|1|2|33)m)")
"""What `typer.style` writes here: bold, dim, yellow, and their end."""


class CommandGroup(TyperGroup):
    """The group of all commands. `FOVEAL_DEBUG=1` shows the traceback instead of the sentence."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Read the options before the command."""
        with one_sentence():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        with one_sentence():
            return super().invoke(ctx)


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turn errors that a user can correct into one sentence and exit code 2."""
    try:
        yield
    except BrokenPipeError:  # the reader of the output went away
        raise
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None or os.environ.get("FOVEAL_DEBUG"):
            raise
        complain(sentence)
        raise typer.Exit(USER_ERROR) from None


def complain(sentence: str) -> None:
    """Say on stderr what is wrong."""
    typer.echo(f"foveal: {printable(sentence)}", err=True)


def printable(sentence: str) -> str:
    """Return a sentence of bounded length whose names cannot command the terminal; lines of a list stay."""
    text = shown(sentence, keep="\n")
    return text if len(text) <= MOST_SAID else f"{text[: MOST_SAID - 1]}…"


def say(text: str, err: bool = False) -> None:
    """Write text on stdout or stderr; of what is not printable only line ends and our own styles stay."""
    parts = STYLES.split(text)
    parts[::2] = [shown(part, keep="\n") for part in parts[::2]]
    typer.echo("".join(parts), err=err)


def echo_json(value: Any, line: bool = False) -> None:
    """Write a result for other programs: rows, alone or within lists and mappings; in one line if wanted.

    Raises:
        ValueError: A number is NaN or infinite.
    """
    from foveal.reporting.rows import as_json

    text = json.dumps(as_json(value), indent=None if line else 1, ensure_ascii=False, allow_nan=False)
    typer.echo("".join(c if c == "\n" or c.isprintable() else json.dumps(c)[1:-1] for c in text))


def _sentence(error: Exception) -> str | None:
    """What to tell the user; None if it is a defect of the program."""
    if type(error).__name__ == "NoArgsIsHelpError":
        return None
    if hasattr(error, "format_message"):  # a usage error, of typer's own click or of click's
        return str(error.format_message()).replace("\n", " ")
    if isinstance(error, ValueError | OSError):
        return str(error)
    return None
