"""What all figures share: style, colours that colour-blind readers keep apart (Okabe and Ito, 2008), writing to a file.

Nothing here touches pyplot, so no window system, backend or global state is involved.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.ticker import FuncFormatter
from PIL import Image

from nasproxy.datasets.decoding import strict_pillow
from nasproxy.errors import InputError, nearest
from nasproxy.files import write_atomically

BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PALETTE = (BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9", VERMILLION, "#222222", "#F0E442")
FAINT = "#BBBBBB"
FORMATS = ("png", "svg", "pdf")
_SOFTWARE = "nasproxy"  # says a picture of ours who made it
_MANY_SCRIPTS = (
    *(f"{family} {region}" for family in ("Noto Sans CJK", "Source Han Sans") for region in ("SC", "TC", "JP", "KR")),
    *("WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "IPAexGothic"),
    *("PingFang SC", "Hiragino Sans", "Hiragino Sans GB", "Apple SD Gothic Neo"),
    *("Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Arial Unicode MS"),
)


def font_families() -> list[str]:
    """The font of figures, and those installed that draw Chinese, Japanese and Korean, which it lacks."""
    installed = {font.name for font in fontManager.ttflist}
    return [*mpl.rcParams["font.family"], *(name for name in _MANY_SCRIPTS if name in installed)]


STYLE: Any = {
    "font.family": font_families(),
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.edgecolor": "#666666",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": "#222222",
    "text.parse_math": False,  # Names are others' text: a dollar sign in one is no formula.
    "grid.color": "#E4E4E4",
    "legend.frameon": False,
    "svg.hashsalt": "nasproxy",  # Equal figures make equal files.
}


def new_canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure of ``width`` by ``height`` inches with one pair of axes."""
    figure = Figure(figsize=(width, height), dpi=200, layout="constrained")
    return figure, figure.subplots()


def say(figure: Figure, axes: Axes, message: str) -> Figure:
    """The figure with a message where its data would be."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, message, ha="center", va="center", transform=axes.transAxes, color="#666666")
    return figure


def in_percent(axes: Axes, *names: str) -> None:
    """Labels fractions on the axes ``names`` (``x``, ``y``) in percent, without the sign: the axis label has it."""
    for name in names:
        getattr(axes, f"{name}axis").set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.6g}"))


def label_points(
    figure: Figure, axes: Axes, x: Float64[np.ndarray, " n"], y: Float64[np.ndarray, " n"], texts: list[str]
) -> None:
    """Writes each text beside its point, on the side that is farthest from other points and from texts set before."""
    figure.draw_without_rendering()  # Constrained layout moves the axes when drawn; distances are measured after that.
    points = axes.transData.transform(np.column_stack([x, y])) * 72 / figure.dpi
    sides = np.array([(1, 0), (0, 1), (-1, 0), (0, -1), (0.8, 0.8), (-0.8, 0.8), (-0.8, -0.8), (0.8, -0.8)]) * 10.0
    taken = list(points)
    for point, text in zip(points, texts, strict=True):
        others = np.array([place for place in taken if place is not point])
        gaps = [np.min(np.hypot(*(others - (point + side)).T), initial=12.0) for side in sides]
        side = sides[int(np.argmax(gaps))]
        taken.append(point + side)
        axes.annotate(
            text, tuple(axes.transData.inverted().transform(point * figure.dpi / 72)), tuple(side),
            textcoords="offset points", ha="center", va="center", fontsize=8,
        )  # fmt: skip


def render(figure: Figure, suffix: str) -> bytes:
    """The figure as ``png``, ``svg`` or ``pdf``; equal figures give equal bytes.

    Raises:
        InputError: another suffix.
    """
    if suffix not in FORMATS:
        raise InputError(f"A figure cannot be written as {suffix!r}.", nearest(suffix, FORMATS))
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": _SOFTWARE}}[suffix]
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # A name in a script that no installed font covers shows as boxes, which is no reason to stop.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format=suffix, dpi="figure", metadata=metadata)
    return buffer.getvalue()


def is_figure(path: Path) -> bool:
    """Whether ``path`` is a PNG that this module wrote."""
    try:
        with strict_pillow(), Image.open(path) as image:
            return image.info.get("Software") == _SOFTWARE
    except Exception:
        return False  # whatever Pillow meets in another's file


def save_figure(figure: Figure, path: Path) -> Path:
    """Writes the figure in the format that the path's suffix names (.png, .svg, .pdf); returns the path.

    Raises:
        InputError: another suffix.
        WriteError: the file cannot be written.
    """
    return write_atomically(path, render(figure, path.suffix.lower().removeprefix(".")))
