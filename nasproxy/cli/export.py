"""``nasproxy export``: a finalist as files that need no nasproxy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from nasproxy.cli.completion import among
from nasproxy.cli.options import Json, Rank, Run, RunSpace
from nasproxy.cli.output import print_json, stdout
from nasproxy.cli.screen import open_screen


def export(
    run: Run,
    rank: Rank = None,
    out_format: Annotated[
        str,
        typer.Option(
            "--format",
            help="torch (a folder with one Python file), pt2 (torch.export), or onnx (takes optional packages).",
            autocompletion=among("torch", "pt2", "onnx"),
        ),
    ] = "torch",
    *,
    out: Annotated[Path, typer.Option(help="The folder to write, or of pt2 and onnx the file.")],
    space: RunSpace = None,
    as_json: Json = False,
) -> None:
    """Write the winner, or another finalist, as files that need no nasproxy, with a model card."""
    from nasproxy.finalists.export import check_export, export_finalist
    from nasproxy.finalists.open import open_finalist

    check_export(out_format, out)
    with open_screen() as screen:
        finalist = open_finalist(run, rank, space)
        screen.stage(f"Exporting {finalist.description.id} as {out_format}", 1)
        found = export_finalist(finalist, out_format, out)
        screen.advance()
    if as_json:
        entry = {name: finalist.entry[name] for name in ("rank", "id", "config", "parameters", "multiply_adds")}
        print_json({"schema": 1, "run": str(run), **entry, "format": out_format, **found.as_json()})
        return
    batch = "batches of any size" if found.any_batch else "one image at a time"
    console = stdout()
    console.print(f"{escape(str(found.path))}: {found.bytes:,} bytes, {batch}", soft_wrap=True)
    console.print(f"Checked with {found.checked_with}: logits differ by {found.difference:.1e} at most", soft_wrap=True)
    console.print(f"Model card: {escape(str(found.card))}", soft_wrap=True)
