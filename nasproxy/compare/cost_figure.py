"""Correlation against cost: what a proxy's trust is bought with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from scipy.optimize import isotonic_regression

from nasproxy.analysis.canvas import PALETTE, STYLE, new_canvas, say
from nasproxy.compare.names import WHOLE
from nasproxy.text import shorten

_MARKERS = "osD^vPX<>*"
_GAP = 0.012  # of the axis, at least, between two marks
_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0
_DECADES = (0.01, 0.1, 1.0, 10.0, _MINUTE, 10 * _MINUTE, _HOUR, 10 * _HOUR, 4 * _DAY, 40 * _DAY, 400 * _DAY)
_BETWEEN = (0.02, 0.05, 0.2, 0.5, 2.0, 5.0, 20.0, 2 * _MINUTE, 5 * _MINUTE, 20 * _MINUTE, 2 * _HOUR, 5 * _HOUR, _DAY)


def correlation_against_cost(document: Mapping[str, Any]) -> Figure:
    """Each proxy's overall rank correlation, with its interval, against the time that it took.

    The time is that of all scores on one worker, with that of making images. The ground truth has no mark: its
    correlation is 1 by definition. Marks that would cover each other are moved apart sideways.

    Args:
        document: of :func:`~nasproxy.compare.table.compare_scores`.
    """
    rows = [row for row in document["rows"] if row["overall_correlation"] is not None and row["proxy"] != WHOLE]
    rows.sort(key=lambda row: -row["overall_correlation"])
    with mpl.rc_context(STYLE):
        figure, axes = new_canvas(6.6 + 0.1 * len(rows), 3.2 + 0.07 * len(rows))
        axes.set_ylabel(
            "Spearman's \N{GREEK SMALL LETTER RHO} on the random sample\n(bars: 95\N{NO-BREAK SPACE}% interval)"
        )
        axes.set_xlabel(f"time for all {document['candidates']} candidates, one worker, making images included")
        if not rows:
            return say(figure, axes, "no proxy has an overall correlation")
        places = _apart(np.array([max(0.01, 60 * (row["minutes"] + row["making_minutes"])) for row in rows]))
        for number, (row, place) in enumerate(zip(rows, places, strict=True)):
            _mark(axes, row, number, float(place))
        axes.set_xscale("log")
        axes.margins(x=0.08, y=0.06)
        axes.axhline(0, color="#666666", linewidth=0.8)
        _name_times(axes)
        axes.grid(visible=True)
        figure.legend(loc="outside right upper", fontsize=8, title="best first", title_fontsize=8, alignment="left")
    return figure


def _apart(seconds: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """The nearest places on a logarithmic axis that keep their distance, in the same order."""
    logarithms = np.log(seconds)
    gap = _GAP * max(float(np.ptp(logarithms)), 1.0)
    order = np.argsort(logarithms, kind="stable")
    steps = gap * np.arange(len(order))
    places = np.empty(len(order))
    places[order] = isotonic_regression(logarithms[order] - steps).x + steps
    moved: Float64[np.ndarray, " n"] = np.exp(places)
    return moved


def _mark(axes: Axes, row: Mapping[str, Any], number: int, place: float) -> None:
    value = row["overall_correlation"]
    low, high = row["overall_interval"] or (value, value)
    axes.errorbar(
        place,
        value,
        yerr=[[max(0.0, value - low)], [max(0.0, high - value)]],
        fmt=_MARKERS[number % len(_MARKERS)],
        color=PALETTE[number % len(PALETTE)],
        markeredgecolor="#222222",
        markeredgewidth=0.5,
        markersize=6.5,
        elinewidth=1.2,
        label=shorten(row["proxy"], 30),
    )


def _name_times(axes: Axes) -> None:
    low, high = axes.get_xlim()
    every = _DECADES if high > 1e3 * low else sorted((*_DECADES, *_BETWEEN))
    axes.xaxis.set_major_locator(FixedLocator([seconds for seconds in every if low <= seconds <= high]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: _short(seconds)))
    axes.xaxis.set_minor_locator(NullLocator())


def _short(seconds: float) -> str:
    """A round time in its own unit."""
    for size, unit in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
