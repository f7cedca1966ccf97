"""Random candidates of a search: where the proxy ranks them, and what they are worth on the whole data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from nasproxy.analysis.canvas import BLUE, STYLE, in_percent, new_canvas, say
from nasproxy.analysis.correlation import RankAgreement
from nasproxy.text import interval, signed


def calibration_figure(sample: Sequence[Mapping[str, Any]], agreement: RankAgreement, ranked: int) -> Figure:
    """Rank on the proxy, best on the right, against validation accuracy after training on the whole data.

    Args:
        sample: of ``calibration`` in a run's summary.
        agreement: of the two orders, for the title.
        ranked: how many candidates have a rank.
    """
    points = [(entry["rank"], entry["whole_accuracy"]) for entry in sample if entry["whole_accuracy"] is not None]
    with mpl.rc_context(STYLE):
        figure, axes = new_canvas(4.8, 3.6)
        axes.set_xlabel(f"rank on the proxy among {ranked}, best on the right")
        axes.set_ylabel("validation accuracy after\ntraining on the whole data (%)")
        if not points:
            return say(figure, axes, "no random candidate has been trained on the whole data")
        figure.suptitle(_title(agreement), x=0.02, ha="left", fontsize=10)
        ranks, accuracies = zip(*points, strict=True)
        axes.scatter(ranks, accuracies, s=24, color=BLUE, linewidth=0, zorder=3)
        axes.set_xlim(ranked + 0.03 * ranked, 1 - 0.03 * ranked)
        axes.margins(y=0.08)
        in_percent(axes, "y")
        axes.grid(visible=True)
    return figure


def _title(agreement: RankAgreement) -> str:
    if agreement.rho is None:
        return "No rank correlation of random candidates"
    span = f", {interval(*agreement.interval, agreement.level)}" if agreement.interval else ""
    return f"\N{GREEK SMALL LETTER RHO} = {signed(agreement.rho)}{span} (n = {agreement.n})"
