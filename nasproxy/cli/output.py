"""What commands print on stdout."""

from __future__ import annotations

import contextlib
import itertools
import json
import shlex
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

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
        number = column in right
        # Where there is no room, a name goes on in the next line, of which an ellipsis would leave nothing to copy.
        table.add_column(column, justify="right" if number else "left", no_wrap=number, overflow="fold")
    return table


@dataclass(frozen=True)
class Row:
    """A row of :func:`print_rows`.

    Args:
        cells: one for each column but the last.
        parts: of the last column; lines break between them only.
        style: as rich understands it.
    """

    cells: Sequence[str]
    parts: Sequence[str] = ()
    style: str | None = None


def print_rows(head: Sequence[str], rows: Sequence[Row], *, right: Collection[str]) -> None:
    """Prints a table of which nothing is cut: what the terminal has no room for stands below its row.

    So does the last column where a row would take more than two lines of it. Outside a terminal, a row is a line.

    Args:
        head: names of the columns; with one more than a row has cells, the last is of the rows' ``parts``.
        rows: below it.
        right: names of the columns that hold numbers.
    """
    console = stdout()
    room = console.width if console.is_terminal else sys.maxsize
    names, title = head[: len(rows[0].cells)], head[len(rows[0].cells) :]
    widths = [max(map(cell_len, column)) for column in zip(names, *(row.cells for row in rows), strict=True)]
    fitting = sum(sum(widths[:number]) + 2 * (number - 1) <= room for number in range(1, len(widths) + 1))
    left = room - sum(widths) - 2 * len(widths)
    last = [_filled(row.parts, left, left) for row in rows]
    beside = (
        fitting == len(widths)
        and all(len(lines) <= 2 for lines in last)
        and all(cell_len(part) <= left for part in itertools.chain(title, *last))
    )

    def line(cells: Sequence[str], behind: Sequence[str]) -> str:
        shown = zip(names, cells, widths[:fitting], strict=False)
        padded = [_padded(cell, width, right=name in right) for name, cell, width in shown]
        return "  ".join([*padded, *behind]).rstrip(" ")

    def say(text: str, style: str | None) -> None:
        console.print(Text(text, style or ""), soft_wrap=True)

    say(line(names, title if beside else ()), "bold")
    for row, lines in zip(rows, last, strict=True):
        say(line(row.cells, lines[:1] if beside else ()), row.style)
        if beside:
            below = [" " * (room - left) + part for part in lines[1:]]
        else:
            cells = [f"{name} {cell}" for name, cell in zip(names[fitting:], row.cells[fitting:], strict=True) if cell]
            below = [f"    {part}" for part in _filled([*cells, *row.parts], room - 4, room - 4)]
        for part in below:
            say(part, row.style)


def print_parts(title: str, parts: Sequence[str]) -> None:
    """Prints parts behind a title in bold; lines break between them only, and all but the first are indented."""
    console = stdout()
    room = console.width if console.is_terminal else sys.maxsize
    first, *more = _filled(parts, room - cell_len(title) - 1, room - 2) or [""]
    console.print(Text.assemble((title, "bold"), " ", first), soft_wrap=True)
    for part in more:
        console.print(Text(f"  {part}"), soft_wrap=True)


def _filled(parts: Iterable[str], first: int, later: int) -> list[str]:
    """As few lines of parts as there can be; in one that is too long for a line stands that part alone."""
    lines: list[str] = []
    for part in parts:
        room = first if len(lines) == 1 else later
        if lines and cell_len(lines[-1]) + 2 + cell_len(part) <= room:
            lines[-1] += f"  {part}"
        else:
            lines.append(part)
    return lines


def _padded(text: str, width: int, *, right: bool) -> str:
    blank = " " * (width - cell_len(text))
    return blank + text if right else text + blank
