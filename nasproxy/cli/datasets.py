"""``nasproxy datasets``: what ``--dataset`` can name."""

from __future__ import annotations

from dataclasses import asdict

import typer

from nasproxy.cli.options import Json
from nasproxy.cli.output import plain_table, print_json, stdout

app = typer.Typer(no_args_is_help=True, help="Datasets with a name.")


@app.callback()
def _group() -> None:
    """Datasets with a name."""


@app.command("list")
def list_datasets(as_json: Json = False) -> None:
    """List the datasets with a name; a folder of images or of Parquet files works too."""
    from nasproxy.datasets.catalogue import available_datasets

    known = available_datasets()
    if as_json:
        print_json({"schema": 1, "datasets": [asdict(info) for info in known]})
        return
    table = plain_table("Name", "What", "Download")
    for info in known:
        table.add_row(info.name, info.description, "yes" if info.needs_download else "no")
    stdout().print(table)
