"""What a comparison leaves: tables, figures, and a page that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from nasproxy.analysis.canvas import save_figure
from nasproxy.analysis.page import figure_address, render_page
from nasproxy.compare.cost_figure import correlation_against_cost
from nasproxy.compare.rank_flow import rank_flow
from nasproxy.compare.scatters import scatters
from nasproxy.compare.scores import ComparisonScores
from nasproxy.compare.side_by_side import load_images, side_by_side
from nasproxy.compare.within_figure import within_figure
from nasproxy.compare.write import below_table, table_cells, with_interval, write_tables
from nasproxy.files import make_folder, write_atomically
from nasproxy.proxies.proxy_set import ProxySet
from nasproxy.text import signed

_CAPTIONS = {
    "scatters": "Each proxy's scores against the validation accuracies after training on the whole data. The order of"
    " points from left to right is the proxy's, from bottom to top that of the whole data.",
    "cost": "Rank correlation on the random sample against what it costs. Marks that would cover each other are moved"
    " apart sideways.",
    "rank_flow": "The best candidates known, and where each proxy ranks them. Up to rank 20, distances are equal.",
    "within": "Where proxies fail. A good overall correlation can hide a family that is ranked at random; a bias above"
    " 0 is of candidates that are put higher than they belong. A proxy that errs at random has a bias too, which draws"
    " every value towards the middle.",
    "images": "The proxies' images, the first of each class.",
}


def write_comparison(directory: Path, scores: ComparisonScores, document: Mapping[str, Any], run: Path) -> None:
    """Writes the tables, the figures (``figures/*.png`` and ``.pdf``) and ``report.html`` into ``directory``.

    Args:
        directory: made if it is not there.
        scores: of the comparison.
        document: of :func:`~nasproxy.compare.table.compare_scores`.
        run: where the proxies' images are, if they are there.

    Raises:
        WriteError: a file cannot be written.
    """
    write_tables(directory, document)
    figures = draw_all(scores, document, load_images(run, scores.proxies))
    save_all(figures, directory)
    page = render_comparison(scores, document, figures)
    write_atomically(directory / "report.html", page.encode("utf-8", errors="replace"))


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
    """Writes each figure, pixels for the screen and vectors for a paper, into ``figures/`` of ``directory``."""
    folder = directory / "figures"
    make_folder(folder)
    for name, figure in figures.items():
        for suffix in ("png", "pdf"):
            save_figure(figure, folder / f"{name}.{suffix}")


def render_comparison(scores: ComparisonScores, document: Mapping[str, Any], figures: Mapping[str, Figure]) -> str:
    """The report's HTML; names and reasons are escaped."""
    head, rows = table_cells(document)
    drawn = [
        (name, figure_address(figure, "png" if name == "images" else "svg"), _CAPTIONS[name])
        for name, figure in figures.items()
    ]
    content = {
        "document": document,
        "main": {"head": head, "rows": rows},
        "paragraphs": below_table(document),
        "figures": drawn,
        "tops": _tops(document),
        "within": _within(document),
        "facts": _facts(scores),
    }
    return render_page("comparison.html", content)


def _tops(document: Mapping[str, Any]) -> dict[str, Any]:
    """A column for each k."""
    rows = [row for row in document["rows"] if row["tops"]]
    ks = [part["k"] for part in rows[0]["tops"]] if rows else []
    cells = [[row["proxy"], *(with_interval(p["correlation"], p["interval"]) for p in row["tops"])] for row in rows]
    head = ["Proxy", *(f"\N{GREEK SMALL LETTER RHO} top {k}" for k in ks)]
    if document["repeats"] > 1:
        head += [f"single \N{GREEK SMALL LETTER RHO} top {document['k']}", "single \N{GREEK SMALL LETTER RHO} overall"]
        for line, row in zip(cells, rows, strict=True):
            line += [
                _with_deviation(row["single_correlation"], row["single_deviation"]),
                _with_deviation(row["overall_single"], row["overall_single_deviation"]),
            ]
    return {"head": head, "rows": cells, "text": _why_missing(rows)}


def _with_deviation(mean: float | None, deviation: float | None) -> str:
    if mean is None or deviation is None:
        return "\N{EN DASH}"
    return f"{signed(mean)} \N{PLUS-MINUS SIGN} {signed(deviation)}"


def _why_missing(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each k without a figure of any proxy, why."""
    found: dict[int, set[str]] = {}
    for part in (part for row in rows for part in row["tops"] if part["correlation"] is None):
        found.setdefault(part["k"], set()).add(part["reason"])
    return [f"Top {k}: {'; '.join(sorted(reasons))}." for k, reasons in sorted(found.items())]


def _within(document: Mapping[str, Any]) -> dict[str, Any]:
    """A row for each proxy and value of a choice."""
    head = ["Proxy", "Choice", "Value", "Candidates", "\N{GREEK SMALL LETTER RHO}", "Bias"]
    return {"head": head, "rows": [_part(row["proxy"], p) for row in document["rows"] for p in row["within"] or ()]}


def _part(proxy: str, part: Mapping[str, Any]) -> Sequence[str]:
    bias = "\N{EN DASH}" if part["bias"] is None else signed(part["bias"])
    names = [proxy, str(part["choice"]), str(part["value"])]
    return [*names, str(part["n"]), with_interval(part["correlation"], part["interval"]), bias]


def _facts(scores: ComparisonScores) -> list[tuple[str, str]]:
    """Settings, versions and machine, one by one."""
    names = ("dataset", "space", "preset", "seed", "repeats", "top_k", "epochs", "whole_epochs")
    found = {name.replace("_", " "): scores.facts.get(name) for name in names}
    nested = {**(scores.facts.get("versions") or {}), **(scores.facts.get("machine") or {})}
    return [(name, str(value)) for name, value in {**found, **nested}.items() if value is not None]
