"""Where proxies fail: correlation and bias within each value of each choice, as two maps with figures in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nasproxy.analysis.canvas import STYLE, new_canvas, say
from nasproxy.compare.names import WHOLE
from nasproxy.text import shorten, signed

_COLOURS = "PuOr"  # its ends are told apart in every kind of colour blindness
_MISSING = "#E4E4E4"
_SIDE_BY_SIDE = 8  # proxies; of more, one map stands below the other


def within_figure(document: Mapping[str, Any]) -> Figure:
    """Each proxy's rank correlation among the candidates with one value of a choice, and the bias that value gets.

    Bias is the proxy's rank minus that on the whole data, as a share of all ranks: above 0 where candidates are put
    higher than they belong.

    Args:
        document: of :func:`~nasproxy.compare.table.compare_scores`.
    """
    rows = [row for row in document["rows"] if row["within"] and row["proxy"] != WHOLE]
    with mpl.rc_context(STYLE):
        if not rows:
            return say(*new_canvas(4.8, 2.4), "no proxy has scores")
        names, parts = [shorten(row["proxy"], 30) for row in rows], _values(rows)
        across = 2 if len(names) <= _SIDE_BY_SIDE else 1
        size = (2.4 + 0.4 * across * len(names), (1.5 + 0.21 * len(parts)) * 2 / across)
        figure = Figure(figsize=size, dpi=200, layout="constrained")
        left, right = figure.subplots(2 // across, across, sharey=True).flat
        _map(left, _figures(rows, "correlation"), names, "Correlation within the value", limit=1.0)
        bias = _figures(rows, "bias")
        _map(right, bias, names, "Bias of the value", limit=max(0.1, float(np.nanmax(np.abs(bias), initial=0.0))))
        for axes in (left, right)[: 3 - across]:
            axes.set_yticks(range(len(parts)), labels=[_name(part) for part in parts], fontsize=8, parse_math=False)
        for line in _borders(parts):
            left.axhline(line, color="white", linewidth=4)
            right.axhline(line, color="white", linewidth=4)
    return figure


def _values(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every value of every choice, with the candidates of the proxy that scored most of them."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for part in (part for row in rows for part in row["within"]):
        known = found.setdefault(_key(part), part)
        found[_key(part)] = max(known, part, key=lambda one: one["n"])
    choices = list(dict.fromkeys(choice for choice, _ in found))
    return sorted(found.values(), key=lambda part: choices.index(part["choice"]))


def _key(part: Mapping[str, Any]) -> tuple[str, str]:
    return str(part["choice"]), repr(part["value"])


def _name(part: Mapping[str, Any]) -> str:
    return f"{shorten(part['choice'])} {shorten(part['value'])} (n = {part['n']})"


def _figures(rows: Sequence[Mapping[str, Any]], figure: str) -> Float64[np.ndarray, "values proxies"]:
    by_value = [{_key(part): part[figure] for part in row["within"]} for row in rows]
    keys = [_key(part) for part in _values(rows)]
    return np.array([[_number(known.get(key)) for known in by_value] for key in keys], dtype=np.float64)


def _number(value: float | None) -> float:
    return np.nan if value is None else value


def _map(
    axes: Axes, figures: Float64[np.ndarray, "values proxies"], names: Sequence[str], title: str, *, limit: float
) -> None:
    colours = mpl.colormaps[_COLOURS].with_extremes(bad=_MISSING)
    axes.imshow(figures, cmap=colours, vmin=-limit, vmax=limit, aspect="auto")
    for (row, column), value in np.ndenumerate(figures):
        text = "\N{EN DASH}" if np.isnan(value) else signed(value)
        dark = abs(value) > 0.6 * limit
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color="white" if dark else "#222222")
    axes.set_title(title, fontsize=9)
    axes.set_xticks(
        range(len(names)), labels=names, rotation=35, ha="right", rotation_mode="anchor", fontsize=8, parse_math=False
    )
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _borders(parts: Sequence[Mapping[str, Any]]) -> list[float]:
    """Between two choices."""
    return [row + 0.5 for row in range(len(parts) - 1) if parts[row]["choice"] != parts[row + 1]["choice"]]
