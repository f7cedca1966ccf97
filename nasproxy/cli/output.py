"""What commands print on stdout."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TextIO

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nasproxy.credentials import without_password

_documents: ContextVar[TextIO | None] = ContextVar("_documents", default=None)


@contextlib.contextmanager
def nothing_but_json() -> Iterator[None]:
    """Within, stdout is for JSON alone; what else is printed, by a search space say, goes to stderr."""
    token = _documents.set(sys.stdout)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _documents.reset(token)


def print_json(document: Mapping[str, Any]) -> None:
    """Prints exactly one JSON document."""
    print(json_line(document), file=_documents.get())


def json_line(document: Mapping[str, Any]) -> str:
    """A JSON document as it is printed, without the line's end."""
    encoding = (_documents.get() or sys.stdout).encoding or "utf-8"
    return json.dumps(document, ensure_ascii=encoding.lower() not in ("utf-8", "utf8"), allow_nan=False)


def say_how_to_go_on(out: Path) -> None:
    """Prints the command that goes on with what was interrupted."""
    typer.echo(f"What is finished is kept. Go on with:\n  {command_to_go_on(out)}", err=True)


def command_to_go_on(out: Path) -> str:
    """This command, with ``--resume`` and the directory of the run; stars stand for what may be secret."""
    words = [word for word in sys.argv[1:] if word not in ("--resume", "--json")]
    for number, word in enumerate(words):
        if word.startswith("--storage=") or words[number - 1 : number] == ["--storage"]:
            words[number] = without_password(word, "***")
    given = [] if any(word == "--out" or word.startswith("--out=") for word in words) else ["--out", str(out)]
    return shlex.join(["nasproxy", *words, *given, "--resume"])


def say_how_to_see_curves(run: Path) -> None:
    """Prints the command that shows the curves of a run, if TensorBoard's were written."""
    if (folder := run / "tensorboard").exists():
        stdout().print(
            f"[bold]Curves[/] {escape(shlex.join(['tensorboard', '--logdir', str(folder)]))}", soft_wrap=True
        )


def stdout() -> Console:
    """A console on stdout; wide enough for a table where it is piped."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=140)


def plain_table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """A table whose head has the names of its columns, if any has one; those named in ``right`` are numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", no_wrap=column in right)
    return table
