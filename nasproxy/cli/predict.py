"""``nasproxy predict``: what a finalist takes images for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from nasproxy.cli.options import Json, Rank, Run, RunSpace
from nasproxy.cli.output import plain_table, print_json, stdout
from nasproxy.text import percent


def predict(
    run: Run,
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    rank: Rank = None,
    space: RunSpace = None,
    as_json: Json = False,
) -> int:
    """Say which class the winner, or another finalist, takes each image for."""
    from nasproxy.finalists.open import open_finalist
    from nasproxy.finalists.predict import image_files, predict

    files = image_files(images)
    finalist = open_finalist(run, rank, space)
    found = list(predict(finalist, files))
    failed = [prediction for prediction in found if prediction.failure is not None]
    rows = [prediction for prediction in found if prediction.failure is None]
    if as_json:
        print_json(
            {
                "schema": 1,
                "run": str(run),
                "rank": finalist.entry["rank"],
                "id": finalist.entry["id"],
                "images": [
                    {"file": _name(row.file), "class": row.class_name, "probability": row.probability} for row in rows
                ],
                "failed": [{"file": _name(row.file), "reason": row.failure} for row in failed],
            }
        )
    elif rows:
        table = plain_table("File", "Class", "Probability", right=("Probability",))
        for row in rows:
            table.add_row(escape(_line(_name(row.file))), escape(_line(row.class_name)), percent(row.probability))
        stdout().print(table)
    for row in failed:
        what = "classified" if row.read else "read"
        typer.echo(f"{_line(_name(row.file))} cannot be {what}: {_line(str(row.failure))}", err=True)
    return 1 if failed else 0


def _name(file: Path) -> str:
    """A file name need not be UTF-8; what is printed must be."""
    return str(file).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _line(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
