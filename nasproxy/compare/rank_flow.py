"""Where each proxy ranks the candidates that are best on the whole data: lines that flow from column to column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from nasproxy.analysis.bootstrap import mean_of_repeats
from nasproxy.analysis.canvas import STYLE, new_canvas, say
from nasproxy.compare.names import WHOLE
from nasproxy.compare.order import ordering
from nasproxy.compare.scores import ComparisonScores
from nasproxy.text import shorten

_BEST = 10
_LINEAR = 20
"""Ranks up to this are drawn at equal distances, later ones closer and closer."""
_NAME, _VALUE, _LONGEST = 10, 16, 120  # characters of a choice, its value and a configuration
_LATER = 12.0  # as many ranks' height for all later ones together


def rank_flow(scores: ComparisonScores, document: Mapping[str, Any]) -> Figure:
    """The ten best candidates known, and the rank that each proxy gives them among all candidates.

    Columns stand in the order of the proxies' overall correlations; candidates that a proxy ties share a rank.

    Args:
        scores: of the comparison.
        document: of :func:`~nasproxy.compare.table.compare_scores`.
    """
    whole = mean_of_repeats(scores.repeats(WHOLE))
    best = [int(position) for position in np.argsort(-whole, kind="stable")[:_BEST] if not np.isnan(whole[position])]
    names = _columns(document)
    with mpl.rc_context(STYLE):
        if not best or not names:
            return say(*new_canvas(4.8, 2.4), "nothing has been trained on the whole data")
        texts = [_describe(scores, position) for position in best]
        figure, axes = new_canvas(1.4 + max(1.5, 0.055 * max(map(len, texts))) + 0.6 * len(names), 4.6)
        columns = [np.arange(1.0, len(best) + 1), *(_ranks(scores, name)[best] for name in names)]
        _draw(axes, _heights(np.stack(columns, axis=1), len(scores)), texts)
        titles = ["whole data", *(shorten(name, 30) for name in names)]
        axes.set_xticks(
            range(len(titles)), labels=titles, rotation=35, ha="right", rotation_mode="anchor", parse_math=False
        )
        _name_ranks(axes, len(scores))
        axes.set_ylabel(f"rank by the proxy among {len(scores)}")
        figure.suptitle(f"The {len(best)} best on the whole data, best first", x=0.02, ha="left", fontsize=10)
    return figure


def _columns(document: Mapping[str, Any]) -> list[str]:
    """The proxies that rank anything, best first."""
    rows = [row for row in document["rows"] if row["proxy"] != WHOLE and row["overall_correlation"] is not None]
    return [str(row["proxy"]) for row in sorted(rows, key=lambda row: -row["overall_correlation"])]


def _ranks(scores: ComparisonScores, name: str) -> Float64[np.ndarray, " candidates"]:
    """Mean ranks, 1 for the best; a candidate without a score comes last of all."""
    order = ordering(scores.repeats(name), scores.numbers(f"{name}.ties"))
    ranks: Float64[np.ndarray, " candidates"] = stats.rankdata(np.nan_to_num(-order, nan=np.inf))
    return ranks


def _draw(axes: Axes, heights: Float64[np.ndarray, "best columns"], texts: Sequence[str]) -> None:
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.92, len(heights)))
    for number, (row, shade, text) in enumerate(zip(heights, shades, texts, strict=True), 1):
        axes.plot(range(len(row)), row, color=shade, linewidth=1.6, marker="o", markersize=5, zorder=20 - number)
        for words, left in ((str(number), -8), (text, -26)):
            axes.annotate(
                words,
                (0, row[0]),
                (left, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=7,
            )
    axes.spines["left"].set_visible(False)
    axes.set_xlim(-0.15, heights.shape[1] - 0.85)


def _heights(ranks: Float64[np.ndarray, "*shape"], last: int) -> Float64[np.ndarray, "*shape"]:
    later = _LINEAR + _LATER * np.log(np.maximum(ranks, _LINEAR) / _LINEAR) / np.log(max(last, 2 * _LINEAR) / _LINEAR)
    heights: Float64[np.ndarray, "*shape"] = np.where(ranks <= _LINEAR, ranks, later)
    return heights


def _name_ranks(axes: Axes, count: int) -> None:
    every = [1, 5, 10, 15, 20, 30, 50, 100, 200, 500, 1000, 10_000, 100_000]
    shown = [rank for rank in every if rank <= count]
    axes.set_yticks(_heights(np.array(shown, dtype=np.float64), count), labels=[f"{rank:,}" for rank in shown])
    axes.yaxis.tick_right()
    axes.yaxis.set_label_position("right")
    axes.tick_params(axis="y", length=0, labelsize=8)
    axes.set_ylim(float(_heights(np.array([float(count)]), count)[0]) + 1, 0.2)
    axes.grid(visible=True, axis="y")


def _describe(scores: ComparisonScores, position: int) -> str:
    chosen = [(name, scores.choice(name)[position]) for name in scores.facts["choices"]]
    return shorten(" ".join(f"{shorten(name, _NAME)}={shorten(value, _VALUE)}" for name, value in chosen), _LONGEST)
