"""``nasproxy proxy``: look into a proxy file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from nasproxy.analysis.text import duration
from nasproxy.cli.options import Json
from nasproxy.cli.output import plain_table, print_json, stdout

app = typer.Typer(no_args_is_help=True, help="Proxy files.")


@app.callback()
def _group() -> None:
    """Proxy files."""


@app.command()
def show(
    file: Annotated[Path, typer.Argument(help="A proxy file.")],
    png: Annotated[
        Path | None, typer.Option(help="Where to draw the images.", show_default="beside the file, .png")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what is in a proxy file, and draw its images."""
    from nasproxy.analysis.proxy_images import save_proxy_grid
    from nasproxy.proxies.proxy_file import load_proxy

    proxy = load_proxy(file)
    drawn = save_proxy_grid(proxy, png or file.with_suffix(".png"))
    height, width = proxy.image_size
    facts = {
        "proxy": str(file),
        "method": proxy.method,
        "images": len(proxy),
        "classes": len(proxy.class_names),
        "image_size": [height, width],
        "channels": int(proxy.images.shape[1]),
        "dataset": proxy.dataset,
        "fingerprint": proxy.fingerprint,
        "recipe": dict(proxy.recipe),
        "loss": proxy.history[-1] if proxy.history else None,
        "seconds": proxy.seconds,
        "versions": dict(proxy.versions),
        "png": str(drawn),
    }
    if as_json:
        print_json({"schema": 1, **facts})
        return
    table = plain_table("", "")
    table.show_header = False
    for name, value in facts.items():
        text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
        table.add_row(name.replace("_", " "), escape(duration(proxy.seconds) if name == "seconds" else text))
    stdout().print(table)
