"""Each proxy's scores against the accuracies on the whole data: the paper's figure F8, for every proxy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Bool, Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from nasproxy.analysis.bootstrap import mean_of_repeats
from nasproxy.analysis.canvas import (
    BLUE,
    FAINT,
    ORANGE,
    STYLE,
    in_percent,
    new_canvas,
    say,
)
from nasproxy.compare.names import MIXED, WHOLE
from nasproxy.compare.order import finalists, ordering
from nasproxy.compare.scores import ComparisonScores
from nasproxy.text import count, shorten, signed

_RHO = "\N{GREEK SMALL LETTER RHO}"
_COLUMNS, _MANY = 3, 9  # of small multiples; one more where there are more panels than that
_LARGE = 1000.0
"""Scores beyond this are drawn on a logarithmic axis, where none is below 1."""
_HUGE = 1e14
"""And beyond this with an exponent."""

Document = Mapping[str, Any]


def scatters(scores: ComparisonScores, document: Document) -> Figure:
    """Each proxy's scores against the accuracies on the whole data (the paper's figure F8), a panel for each proxy.

    Args:
        scores: of the comparison.
        document: of :func:`~nasproxy.compare.table.compare_scores`.
    """
    rows = [row for row in document["rows"] if _is_scored(scores, row) and row["proxy"] != WHOLE]
    with mpl.rc_context(STYLE):
        if not rows or document["best"] is None:
            return say(*new_canvas(4.8, 2.4), "nothing has been trained on the whole data")
        columns = min(_COLUMNS + (len(rows) > _MANY), len(rows))
        lines = -(-len(rows) // columns)
        figure = Figure(figsize=(0.5 + 2.2 * columns, 0.75 + 2.2 * lines), dpi=200, layout="constrained")
        panels = figure.subplots(lines, columns, sharey=True, squeeze=False)
        for axes in panels.flat[len(rows) :]:
            axes.set_visible(False)
        for axes, row in zip(panels.flat, rows, strict=False):
            _scatter(axes, scores, row, document["k"])
        figure.supylabel("validation accuracy after training on the whole data (%)", fontsize=9)
        figure.legend(
            handles=_groups(scores, document["k"]), loc="outside lower center", ncols=3, fontsize=8, handletextpad=0.1
        )
    return figure


def _is_scored(scores: ComparisonScores, row: Mapping[str, Any]) -> bool:
    name = row["proxy"]
    return scores.proxies[name]["reason"] is None and not np.isnan(scores.repeats(name)).any(axis=1).all()


def _groups(scores: ComparisonScores, k: int) -> list[Line2D]:
    style: Any = {"linestyle": "", "markeredgewidth": 0}
    groups = [
        Line2D([], [], marker="o", markersize=4, color=BLUE, label="random sample", **style),
        Line2D([], [], marker="D", markersize=5, color=ORANGE, label=f"among the proxy's top {k}", **style),
        Line2D([], [], marker="o", markersize=3.5, color=FAINT, label="another proxy's top", **style),
    ]
    trained = ~np.isnan(scores.repeats(WHOLE)).any(axis=1)
    return groups if (trained & ~scores.sampled).any() else groups[:2]


def _scatter(axes: Axes, scores: ComparisonScores, row: Mapping[str, Any], k: int) -> None:
    x, y, best = _pairs(scores, row["proxy"], k)
    sampled = scores.sampled & ~best
    others = ~(best | sampled)
    for chosen, size, colour, marker in ((others, 10, FAINT, "o"), (sampled, 14, BLUE, "o"), (best, 20, ORANGE, "D")):
        axes.scatter(x[chosen], y[chosen], s=size, color=colour, marker=marker, linewidth=0, zorder=3)
    axes.set_title(shorten(row["proxy"], 30), fontsize=9)
    overall, top = ("none" if row[name] is None else signed(row[name]) for name in _BOTH)
    axes.set_xlabel(f"{_x_name(scores, row['proxy'])}\n{_RHO} {overall} overall, {top} top {k}", fontsize=8)
    _scale(axes, x[~np.isnan(y)], accuracies=_gives_accuracies(scores, row["proxy"]))
    in_percent(axes, "y")
    axes.tick_params(labelsize=8)
    axes.grid(visible=True)


_BOTH = ("overall_correlation", "correlation")


def _pairs(
    scores: ComparisonScores, name: str, k: int
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Score and accuracy of each candidate, and whether it is among the proxy's best k."""
    proxy = scores.repeats(name)
    order = ordering(proxy, scores.numbers(f"{name}.ties"))
    best = np.zeros(len(scores), dtype=bool)
    best[finalists(order, scores.facts["top_k"], scores.facts["seed"])[:k]] = True
    return mean_of_repeats(proxy), mean_of_repeats(scores.repeats(WHOLE)), best


def _gives_accuracies(scores: ComparisonScores, name: str) -> bool:
    return str(scores.facts["columns"][f"{name}.0"]["meaning"]).startswith("validation accuracy")


def _x_name(scores: ComparisonScores, name: str) -> str:
    if _gives_accuracies(scores, name):
        return "validation accuracy (%)"
    return "mean standardised score" if MIXED in name else "score"


def _scale(axes: Axes, x: Float64[np.ndarray, " n"], *, accuracies: bool) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(4))
    if accuracies:
        in_percent(axes, "x")
    elif np.nanmin(x, initial=np.inf) >= 1 and np.nanmax(x, initial=0) > _LARGE:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=4))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _large(value)))
    axes.margins(0.08)


def _large(value: float) -> str:
    if value >= _HUGE:
        return f"{value:.0e}".replace("e+", "e")
    number, _, unit = count(value).partition(" ")
    return f"{float(number):g} {unit}".strip()
