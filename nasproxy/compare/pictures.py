"""All figures of a comparison, as files: pixels for the screen, vectors for a paper."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from nasproxy.analysis.canvas import save_figure
from nasproxy.compare.cost_figure import correlation_against_cost
from nasproxy.compare.rank_flow import rank_flow
from nasproxy.compare.scatters import scatters
from nasproxy.compare.scores import ComparisonScores
from nasproxy.compare.side_by_side import side_by_side
from nasproxy.compare.within_figure import within_figure
from nasproxy.files import make_folder
from nasproxy.proxies.proxy_set import ProxySet


def draw_all(
    scores: ComparisonScores, document: Mapping[str, Any], images: Mapping[str, ProxySet]
) -> dict[str, Figure]:
    """Every figure by its name; the images only where there are any.

    Args:
        scores: of the comparison.
        document: of :func:`~nasproxy.compare.table.compare_scores`.
        images: of the proxies that have some, by name.
    """
    figures = {
        "scatters": scatters(scores, document),
        "cost": correlation_against_cost(document),
        "rank_flow": rank_flow(scores, document),
        "within": within_figure(document),
    }
    return {**figures, "images": side_by_side(images)} if images else figures


def save_all(figures: Mapping[str, Figure], directory: Path) -> None:
    """Writes each figure as PNG and PDF into ``figures/`` of ``directory``."""
    folder = directory / "figures"
    make_folder(folder)
    for name, figure in figures.items():
        for suffix in ("png", "pdf"):
            save_figure(figure, folder / f"{name}.{suffix}")
