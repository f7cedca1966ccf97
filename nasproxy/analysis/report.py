"""The report of a run: one page that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nasproxy.analysis import figures
from nasproxy.analysis.calibration_figure import calibration_figure
from nasproxy.analysis.correlation import RankAgreement, proxy_order, spearman
from nasproxy.analysis.effects import best_count, choice_effects
from nasproxy.analysis.explain import against_winner, agreement_of, explain, explain_calibration
from nasproxy.analysis.page import data_address, figure_address, render_page
from nasproxy.analysis.proxy_images import class_tiles
from nasproxy.analysis.report_tables import (
    all_candidates,
    effect_table,
    failures,
    finalists,
    settings_tables,
    state_counts,
)
from nasproxy.analysis.results import RunResults, load_run
from nasproxy.files import write_atomically
from nasproxy.proxies.image_parquet import png
from nasproxy.proxies.proxy_set import ProxySet
from nasproxy.text import Number, count, duration, milliseconds, percent, wilson

_MOST_IMAGES = 1000  # More of them, a browser lays out with delay.
_LARGEST_IMAGE = 128  # Pixels.
_SIZES = {"multiply_adds": "multiply-adds", "parameters": "parameters", "latency_ms": "measured latency"}


def write_report(directory: Path) -> Path:
    """Writes ``report.html`` into a run directory, finished or not; returns its path.

    The page is one file: styles, figures and images are in it, and it loads nothing.

    Args:
        directory: as ``nasproxy search --out`` leaves it.

    Raises:
        RunError: the directory is not a run's, or a file in it is missing, truncated or foreign.
        WriteError: the page cannot be written.
    """
    page = render_report(load_run(directory))
    return write_atomically(directory / "report.html", page.encode("utf-8", errors="replace"))


def render_report(results: RunResults) -> str:
    """The report's HTML. Whatever came from outside is escaped: names, settings, reasons."""
    return render_page("report.html", _page(results))


def _page(results: RunResults) -> dict[str, Any]:
    """All that the template shows, as texts and lists of texts."""
    run, summary, table = results.run, results.summary, results.table
    agreement = _agreement(results)
    winner = summary.get("winner") or {}
    trained = table["proxy_accuracy"].notna()
    effects = choice_effects(table)
    return {
        "finished": results.finished,
        "name": results.directory.resolve().name,
        "dataset": str(run["dataset"].get("name")),
        "space": str(run["space"].get("name")),
        "proxy": str(run["settings"].get("proxy")),
        "states": state_counts(table),
        "cut_short": _cut_short(summary),
        "candidates": all_candidates(table),
        "winner": _winner(winner, run["dataset"]) if winner else None,
        "finalists": finalists(table, winner.get("id")),
        "verdict": _verdict(winner, summary),
        "agreement": explain(agreement),
        "calibration": _calibration(summary),
        "scatter": figure_address(figures.proxy_against_whole(table, agreement)),
        "ranking": figure_address(figures.ranking(table)),
        "marginals": figure_address(figures.marginal_effects(table)),
        "sizes": [
            (_SIZES[size], figure_address(figures.accuracy_against_size(table, size))) for size in _sizes(results)
        ],
        "uneven": table.loc[trained, "proxy_epochs"].nunique() > 1,
        "times": figure_address(figures.stage_times(summary["seconds"])) if results.finished else None,
        "rungs": [_rung(rung) for rung in summary.get("rungs") or []],
        "images": _images(results.proxy) if results.proxy else None,
        "effects": [effect_table(effect, best_count(table)) for effect in effects],
        "colour": effects[0].name if effects else "",
        "failures": failures(table),
        "settings": settings_tables(run),
        "notes": [str(note) for note in run["dataset"].get("notes") or []],
    }


def _agreement(results: RunResults) -> RankAgreement:
    """As the summary has it; of what there is while the run is unfinished."""
    if not results.finished:
        finished = results.table.dropna(subset=["proxy_epochs", "proxy_accuracy", "whole_accuracy"])
        return spearman(proxy_order(finished.to_dict("records")), finished["whole_accuracy"])
    return agreement_of(results.summary["agreement"])


def _calibration(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """What random candidates on the whole data said, if there were any."""
    found = summary.get("calibration")
    if not found:
        return None
    agreement, ranked = agreement_of(found), found.get("ranked") or 0
    return {
        "sentences": [*explain_calibration(agreement, ranked), *against_winner(found, summary.get("winner"))],
        "figure": figure_address(calibration_figure(found["sample"], agreement, ranked)),
    }


def _sizes(results: RunResults) -> list[str]:
    """The columns that accuracy is drawn against: those that candidates were ranked by, or multiply-adds."""
    asked = results.run["settings"].get("objectives")
    names = [str(name).replace("-", "_") for name in asked] if isinstance(asked, list) else []
    columns = ["latency_ms" if name == "latency" else name for name in names]
    return [name for name in columns if name in _SIZES and name in results.table] or ["multiply_adds"]


def _cut_short(summary: Mapping[str, Any]) -> str | None:
    """What a time budget kept from being ranked."""
    if not summary.get("budget_spent"):
        return None
    return (
        f"{summary.get('not_reached') or 0:,} of {summary.get('candidates') or 0:,} candidates were not reached, and "
        "those that were may have been measured for different numbers of epochs."
    )


def _winner(winner: Mapping[str, Any], dataset: Mapping[str, Any]) -> dict[str, Any]:
    sizes = [(name, winner.get(name)) for name in ("parameters", "multiply_adds")]
    facts = [
        (count(value), name.replace("multiply_adds", "multiply-adds")) for name, value in sizes if value is not None
    ]
    if winner.get("latency_ms") is not None:
        facts.append((milliseconds(winner["latency_ms"]), "latency of one image"))
    facts.insert(0, (percent(winner.get("whole_accuracy")), "validation accuracy, trained on the whole data"))
    return {
        "config": [(str(name), str(value)) for name, value in winner.get("config", {}).items()],
        "test_accuracy": percent(winner.get("test_accuracy")),
        "test_note": _test_note(winner.get("test_accuracy"), dataset.get("test")),
        "facts": [*facts, (f"{winner.get('rank')}", "rank on the proxy")],
    }


def _test_note(accuracy: Number | None, images: object) -> str:
    """How far the test accuracy could be off by the choice of test images (Wilson's score interval)."""
    if accuracy is None or not isinstance(images, int) or images < 1:
        return "test accuracy"
    low, high = wilson(accuracy, images)
    return f"test accuracy on {images:,} images (95\N{NO-BREAK SPACE}% interval {100 * low:.1f} to {percent(high)})"


def _verdict(winner: Mapping[str, Any], summary: Mapping[str, Any]) -> str | None:
    """What ranking on the proxy alone would have cost."""
    first = next(iter(summary.get("top", [])), None)
    if not winner or first is None:
        return None
    best = f"The finalist that is best on the whole data was number {winner.get('rank')} on the proxy"
    if first.get("whole_accuracy") is None:
        return f"{best}; the proxy's first choice could not be trained on the whole data."
    if first.get("id") == winner.get("id"):
        return "The proxy's first choice is also the finalist that is best on the whole data."
    if first["whole_accuracy"] == winner.get("whole_accuracy"):
        return f"{best}; the proxy's first choice has the same validation accuracy there, and a higher cross-entropy."
    return (
        f"{best}; the proxy's first choice reaches {percent(first['whole_accuracy'])} where it reaches "
        f"{percent(winner.get('whole_accuracy'))} (validation accuracy)."
    )


def _rung(rung: Mapping[str, Any]) -> tuple[str, str, str]:
    seconds = rung.get("seconds")
    return str(rung.get("epochs")), str(rung.get("candidates")), "" if seconds is None else duration(seconds)


def _images(proxy: ProxySet) -> dict[str, Any]:
    """The proxy's images by class, as many of each as fit, and what a reader should know about them."""
    names = proxy.class_names
    most = int(torch.bincount(proxy.labels, minlength=len(names)).max())
    shown = max(1, min(most, _MOST_IMAGES // len(names)))
    height, width = proxy.image_size
    notes = [
        f"{len(proxy):,} images of {height} by {width} pixels, made by {proxy.method} in {duration(proxy.seconds)}."
    ]
    if shown < most:
        notes.append(f"Shown: the first {shown} of each class.")
    if max(height, width) > _LARGEST_IMAGE:
        notes.append(f"Shown at {_LARGEST_IMAGE} pixels.")
    rows = []
    for label, name in enumerate(names):
        tiles = class_tiles(proxy, label, largest=_LARGEST_IMAGE)[:shown]
        rows.append((name, [data_address("image/png", png(tile)) for tile in tiles]))
    return {"rows": rows, "note": " ".join(notes), "small": max(height, width) <= 64}
