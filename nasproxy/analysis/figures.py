"""The figures of a run. Each function returns a matplotlib ``Figure``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from nasproxy.analysis.canvas import (
    BLUE,
    FAINT,
    PALETTE,
    STYLE,
    VERMILLION,
    in_percent,
    label_points,
    new_canvas,
    say,
)
from nasproxy.analysis.correlation import RankAgreement
from nasproxy.analysis.pareto import front_numbers
from nasproxy.analysis.results import CHOICE, choice_columns
from nasproxy.text import Number, count, duration, interval, percent, shorten, signed

_SIZES = {
    "multiply_adds": "multiply-adds of one image",
    "parameters": "parameters",
    "latency_ms": "measured latency of one image (ms)",
}
_PROXY_LABEL = "validation accuracy after training on the proxy (%)"


def proxy_against_whole(table: pd.DataFrame, agreement: RankAgreement) -> Figure:
    """The finalists' accuracy on the proxy against that on the whole data, labelled by proxy rank.

    Args:
        table: of ``load_run``; rows without a whole-data accuracy are left out.
        agreement: of the two orders, for the title.
    """
    finalists = table.dropna(subset=["proxy_accuracy", "whole_accuracy"])
    with mpl.rc_context(STYLE):
        figure, axes = new_canvas(4.8, 4.2)
        figure.suptitle(_agreement_title(agreement), x=0.02, ha="left", fontsize=10)
        axes.set_xlabel(_PROXY_LABEL)
        axes.set_ylabel("validation accuracy after\ntraining on the whole data (%)")
        if finalists.empty:
            return say(figure, axes, "no finalist has been trained on the whole data yet")
        x, y = (finalists[name].to_numpy(np.float64) for name in ("proxy_accuracy", "whole_accuracy"))
        best = y == y.max()
        axes.scatter(x[~best], y[~best], s=36, color=BLUE, zorder=3, label="finalist, with its rank on the proxy")
        axes.scatter(x[best], y[best], s=90, color=VERMILLION, marker="*", zorder=3, label="best on the whole data")
        axes.margins(0.12)
        in_percent(axes, "x", "y")
        axes.grid(visible=True)
        figure.legend(loc="outside lower center", ncols=2, fontsize=8, handletextpad=0.1)
        label_points(figure, axes, x, y, [f"{rank}" for rank in finalists["rank"]])
    return figure


def accuracy_against_size(table: pd.DataFrame, size: str = "multiply_adds") -> Figure:
    """Proxy accuracy against size of all candidates trained in full, with the Pareto front of the two.

    Args:
        table: of ``load_run``.
        size: ``multiply_adds``, ``parameters`` or ``latency_ms``.
    """
    scored = table["proxy_accuracy"].notna() & ~table["diverged"]
    whole = table[(table["state"] == "complete") & scored].sort_values(size)
    with mpl.rc_context(STYLE):
        figure, axes = new_canvas(4.8, 3.6)
        axes.set_ylabel("validation accuracy after\ntraining on the proxy (%)")
        axes.set_xlabel(_SIZES[size])
        if whole.empty:
            return say(figure, axes, "no candidate has been trained in full yet")
        x, y = (whole[name].to_numpy(np.float64) for name in (size, "proxy_accuracy"))
        best = np.array(front_numbers(np.column_stack([x, -y]).tolist())) == 0
        axes.scatter(x[~best], y[~best], s=18, color=BLUE, linewidth=0, label="candidate", rasterized=len(x) > 2000)
        style: Any = {"color": VERMILLION, "marker": "o", "markersize": 5, "linewidth": 1, "drawstyle": "steps-post"}
        axes.plot(x[best], y[best], label="Pareto front", **style)
        if x.min() > 0 and x.max() > 10 * x.min():
            axes.set_xscale("log")
            wide = x.max() > 1000 * x.min()  # more labels would overlap
            axes.xaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5)))
            axes.xaxis.set_minor_formatter(NullFormatter())
        text = (lambda value, _: f"{value:.3g}") if size == "latency_ms" else (lambda value, _: count(value))
        axes.xaxis.set_major_formatter(FuncFormatter(text))
        axes.margins(0.06)
        in_percent(axes, "y")
        axes.grid(visible=True)
        figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    return figure


def stage_times(seconds: Mapping[str, Number | None]) -> Figure:
    """Where a run's time went, a bar for each stage.

    Args:
        seconds: for each stage; ``total``, where given, is what the shares refer to, and what no stage accounts for
            is shown as ``other``.
    """
    stages = {name: float(value) for name, value in seconds.items() if value is not None and name != "total"}
    total = max(float(seconds.get("total") or 0), sum(stages.values()))
    if total - sum(stages.values()) > 0.01 * total:
        stages["other"] = total - sum(stages.values())
    size, unit = (3600, "hours") if total >= 7200 else (60, "minutes") if total >= 120 else (1, "seconds")
    with mpl.rc_context(STYLE):
        figure, axes = new_canvas(4.8, 0.9 + 0.36 * max(len(stages), 1))
        if not total:
            return say(figure, axes, "no time has been recorded")
        axes.set_title(f"{duration(total)} in all")
        lengths = [value / size for value in stages.values()]
        bars = axes.barh(range(len(stages)), lengths, color=BLUE, height=0.62)
        labels = [f"{duration(value)} ({percent(value / total, 0)})" for value in stages.values()]
        axes.bar_label(bars, labels, padding=4, fontsize=8)
        _name_rows(axes, range(len(stages)), list(stages))
        axes.set_xlim(0, max(lengths) * 1.45)
        axes.set_xlabel(f"wall-clock time ({unit})")
        axes.grid(visible=True, axis="x")
    return figure


def ranking(table: pd.DataFrame) -> Figure:
    """Every candidate's proxy accuracy in rank order, and below it at which ranks each value of one choice stands.

    The choice is the one that explains the most of the accuracies' variance. Dotted lines part candidates trained for
    different numbers of epochs, whose accuracies do not compare.

    Args:
        table: of ``load_run``.
    """
    scored = _scored(table)
    names = [column.removeprefix(CHOICE) for column in choice_columns(table)]
    with mpl.rc_context(STYLE):
        if scored.empty or not names:
            return say(*new_canvas(4.8, 2.4), "no candidate has been trained yet")
        chosen = max(names, key=lambda name: explained_variance(scored, name) or 0.0)
        rows = len(scored[CHOICE + chosen].cat.categories)
        figure = Figure(figsize=(4.8, 3.4 + 0.24 * rows), dpi=200, layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.4, 0.24 * rows))
        above.set_ylabel("validation accuracy after\ntraining on the proxy (%)")
        below.set_xlabel("rank on the proxy")
        _draw_ranks(above, below, scored, chosen)
        epochs = _part_by_epochs(above, below, scored)
        figure.suptitle(f"{len(scored):,} candidates by {shorten(chosen)}{epochs}", x=0.02, ha="left", fontsize=10)
        in_percent(above, "y")
        above.grid(visible=True, axis="y")
    return figure


def marginal_effects(table: pd.DataFrame) -> Figure:
    """For each choice, a box plot of the proxy accuracies of all candidates that have each value.

    The line is the median, the box the middle half; the whiskers reach to the extremes. Titles give the share of
    variance that the choice alone explains (``explained_variance``), if there are enough candidates for it.
    """
    scored = _scored(table)
    names = [column.removeprefix(CHOICE) for column in choice_columns(table)]
    with mpl.rc_context(STYLE):
        if scored.empty or not names:
            return say(*new_canvas(4.8, 2.4), "no candidate has been trained yet")
        rows = [len(scored[CHOICE + name].cat.categories) + 1 for name in names]
        figure = Figure(figsize=(4.8, 0.6 + sum(0.42 + 0.22 * count for count in rows)), dpi=200, layout="constrained")
        panels = figure.subplots(len(names), 1, sharex=True, squeeze=False, height_ratios=rows)[:, 0]
        for name, axes in zip(names, panels, strict=True):
            _boxes(axes, scored, name)
        in_percent(panels[-1], "x")
        panels[-1].set_xlabel(_PROXY_LABEL)
    return figure


def explained_variance(table: pd.DataFrame, choice: str) -> float | None:
    """The share of the proxy accuracies' variance that the values of ``choice`` alone explain (adjusted R²), in [0, 1].

    Of a one-way analysis of variance, less what as many values explain by chance; 0 where all accuracies are equal.
    None where there are not two candidates for each value on average: single ones explain everything by themselves.
    """
    scored = _scored(table)
    accuracy, values = scored["proxy_accuracy"], scored[CHOICE + choice]
    candidates, groups = len(scored), values.nunique()
    if candidates < 2 * groups:
        return None
    total = float(((accuracy - accuracy.mean()) ** 2).sum())
    means = accuracy.groupby(values, observed=True).transform("mean")
    within = float(((accuracy - means) ** 2).sum())
    return max(0.0, 1 - within / (candidates - groups) / (total / (candidates - 1))) if total > 0 else 0.0


def _scored(table: pd.DataFrame) -> pd.DataFrame:
    return table.dropna(subset=["proxy_accuracy"])


def _agreement_title(agreement: RankAgreement) -> str:
    if agreement.rho is None:
        return f"{agreement.n} finalists, no rank correlation"
    sure = f" ({interval(*agreement.interval, agreement.level)})" if agreement.interval else ""
    return f"{agreement.n} finalists: \N{GREEK SMALL LETTER RHO} = {signed(agreement.rho)}{sure}"


def _name_rows(axes: Axes, positions: range, names: list[str]) -> None:
    """Names at the left of horizontal bars or boxes, the first at the top."""
    # Said here too: ticks can be remade when the figure is drawn, outside the style's context.
    axes.set_yticks(positions, labels=[shorten(name) for name in names], parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()


def _draw_ranks(above: Axes, below: Axes, scored: pd.DataFrame, choice: str) -> None:
    values = scored[CHOICE + choice]
    names = list(values.cat.categories)
    many = len(names) > len(PALETTE)
    shades = mpl.colormaps["cividis"](np.linspace(0, 0.9, len(names)))
    for row, name in enumerate(names):
        chosen = scored[values == name]
        ranks, colour = chosen["rank"].to_numpy(np.float64), shades[row] if many else PALETTE[row]
        # Each mark of a vector drawing costs a reader's browser.
        above.scatter(ranks, chosen["proxy_accuracy"], s=7, color=colour, linewidth=0, rasterized=len(scored) > 2000)
        below.vlines(ranks, row - 0.36, row + 0.36, color=colour, linewidth=0.7, rasterized=len(scored) > 2000)
    _name_rows(below, range(len(names)), names)
    below.spines["left"].set_visible(False)
    below.xaxis.set_major_locator(MaxNLocator(integer=True))


def _part_by_epochs(above: Axes, below: Axes, scored: pd.DataFrame) -> str:
    """Draws lines between stretches of ranks that were trained for different numbers of epochs; says which."""
    ranked = scored.loc[~scored["diverged"], ["rank", "proxy_epochs"]].dropna().astype(int)
    epochs = list(ranked["proxy_epochs"].unique())
    if len(epochs) < 2:
        return ""
    starts = ranked.loc[ranked["proxy_epochs"].diff().fillna(0) != 0, "rank"]
    if len(starts) >= len(epochs):  # An asynchronous scheduler mixes them.
        return f"; trained for {min(epochs)} to {max(epochs)} epochs"
    for axes in (above, below):
        for start in starts:
            axes.axvline(start - 0.5, color="#777777", linewidth=0.8, linestyle=":")
    return f"; trained for {', '.join(map(str, epochs[:-1]))} or {epochs[-1]} epochs"


def _boxes(axes: Axes, scored: pd.DataFrame, choice: str) -> None:
    values = scored[CHOICE + choice]
    names = list(values.cat.categories)
    groups = [scored.loc[values == name, "proxy_accuracy"].to_numpy(np.float64) for name in names]
    rng = np.random.default_rng(0)
    for row, group in enumerate(groups):
        heights = row + rng.uniform(-0.28, 0.28, len(group))
        axes.scatter(group, heights, s=3, color=FAINT, linewidth=0, rasterized=len(scored) > 500)
    axes.boxplot(
        groups,
        positions=range(len(names)),
        orientation="horizontal",
        widths=0.56,
        whis=(0, 100),
        medianprops={"color": VERMILLION, "linewidth": 1.6},
        boxprops={"color": BLUE},
        whiskerprops={"color": BLUE},
        capprops={"color": BLUE},
    )
    share = explained_variance(scored, choice)
    said = "" if share is None else f": explains {percent(share, 0)} of the variance"
    axes.set_title(f"{shorten(choice)}{said}", fontsize=9)
    _name_rows(axes, range(len(names)), names)
    axes.grid(visible=True, axis="x")
