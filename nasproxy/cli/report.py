"""``nasproxy report``: one self-contained page about a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nasproxy.cli.options import Json
from nasproxy.cli.output import print_json


def report(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    as_json: Json = False,
) -> None:
    """Write report.html into a run directory: table, proxy images, agreement, times."""
    from nasproxy.analysis.report import write_report

    path = write_report(run)
    if as_json:
        print_json({"schema": 1, "report": str(path)})
    else:
        typer.echo(path)
