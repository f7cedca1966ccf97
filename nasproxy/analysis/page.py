"""Pages that need nothing beside them: templates, and pictures within the page."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import jinja2
from matplotlib.figure import Figure

from nasproxy.analysis.canvas import render


def render_page(template: str, content: Mapping[str, Any]) -> str:
    """The HTML of a template of this package. Whatever came from outside is escaped: names, settings, reasons.

    Args:
        template: its file's name.
        content: what it shows.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(
            lambda name: files("nasproxy.analysis").joinpath(name).read_text(encoding="utf-8")
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(content)


def figure_address(figure: Figure, suffix: str = "svg") -> str:
    """A figure as an address that holds all of it."""
    return data_address({"svg": "image/svg+xml", "png": "image/png"}[suffix], render(figure, suffix))


def data_address(kind: str, content: bytes) -> str:
    """An address that holds ``content`` of a media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
