"""The tables of the report, as texts: a template only has to put them in place."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from nasproxy.analysis.effects import ChoiceEffect
from nasproxy.analysis.results import CHOICE, choice_columns
from nasproxy.credentials import CREDENTIALS
from nasproxy.text import count, counted, duration, percent
from nasproxy.training.strategy import AUTO, NONE

_MOST_ROWS = 2000  # Beyond this a browser takes seconds to sort; results.csv has the rest.
_MOST_REASONS, _MOST_NAMED, _MOST_REASON = 100, 10, 4000


@dataclass(frozen=True)
class Column:
    """A table's column.

    Args:
        title: its heading.
        numeric: whether its cells are numbers.
        kind: ``choice``, ``figure`` (what can be drawn), or neither.
    """

    title: str
    numeric: bool = True
    kind: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell: what is read, and what is sorted by (None: the text)."""

    text: str
    key: float | None = None


@dataclass(frozen=True)
class Table:
    """Columns and rows of one length.

    Args:
        marked: the row to stand out, if any.
        left_out: rows there was no room for.
    """

    columns: list[Column]
    rows: list[list[Cell]]
    marked: int | None = None
    left_out: int = 0


_FORMATS: dict[str, tuple[Column, Callable[[Any], str]]] = {
    "proxy_accuracy": (Column("proxy accuracy (%)"), lambda value: f"{100 * value:.2f}"),
    "whole_accuracy": (Column("whole-data accuracy (%)"), lambda value: f"{100 * value:.2f}"),
    "test_accuracy": (Column("test accuracy (%)"), lambda value: f"{100 * value:.2f}"),
    "proxy_cross_entropy": (Column("proxy cross-entropy"), lambda value: f"{value:.3f}"),
    "proxy_epochs": (Column("proxy epochs"), lambda value: f"{value}"),
    "parameters": (Column("parameters"), count),
    "multiply_adds": (Column("multiply-adds"), count),
    "latency_ms": (Column("latency (ms)"), lambda value: f"{value:.3g}"),
    "seconds": (Column("proxy training (s)"), lambda value: f"{value:.2f}"),
    "whole_seconds": (Column("whole-data training"), duration),
}
_FINALIST = (
    "proxy_accuracy",
    "whole_accuracy",
    "test_accuracy",
    "parameters",
    "multiply_adds",
    "latency_ms",
    "whole_seconds",
)
_CANDIDATE = (
    "proxy_epochs",
    "proxy_accuracy",
    "proxy_cross_entropy",
    "whole_accuracy",
    "test_accuracy",
    "parameters",
    "multiply_adds",
    "latency_ms",
    "seconds",
)


def finalists(table: pd.DataFrame, winner: object) -> Table:
    """The candidates trained on the whole data, in proxy order; the one with the id ``winner`` stands out."""
    chosen = table.dropna(subset=["whole_accuracy"]).reset_index(drop=True)
    made = _table(chosen, _FINALIST, states=False)
    places = chosen.index[chosen["id"] == winner]
    return Table(made.columns, made.rows, int(places[0]) if len(places) else None)


def all_candidates(table: pd.DataFrame) -> Table:
    """Every candidate in rank order, up to 2,000."""
    made = _table(table.head(_MOST_ROWS), _CANDIDATE, states=True)
    return Table(made.columns, made.rows, left_out=max(0, len(table) - _MOST_ROWS))


def effect_table(effect: ChoiceEffect, best: int) -> dict[str, Any]:
    """A choice's ``name``, the ``verdict`` on its values in a sentence or two, and their ``table``.

    Args:
        effect: of the choice.
        best: how many candidates the best tenth are.
    """
    columns = [
        Column(effect.name, numeric=False),
        Column("candidates"),
        Column("mean rank"),
        Column("proxy accuracy (%), mean"),
        Column("standard deviation"),
        Column("best (%)"),
        Column(f"of the {best:,} best"),
    ]
    rows = [
        [
            value.value,
            f"{value.candidates:,}",
            f"{value.mean_rank:,.0f}",
            f"{100 * value.mean:.2f}",
            "\N{EN DASH}" if value.deviation is None else f"{100 * value.deviation:.2f}",
            f"{100 * value.best:.2f}",
            f"{value.among_best:,}",
        ]
        for value in effect.ranked
    ]
    table = Table(columns, [[Cell(text) for text in row] for row in rows])
    return {"name": effect.name, "verdict": _verdict(effect), "table": table}


def _verdict(effect: ChoiceEffect) -> str:
    (first, second), found = (f"{effect.name} {value.value}" for value in effect.ranked[:2]), effect.difference
    tied = effect.ranked[0].mean_rank == effect.ranked[1].mean_rank
    order = f"{first} and {second} rank alike on average" if tied else f"{first} ranks best on average, then {second}"
    said = f"{order}. " + (
        "Its values have too few candidates to say how much of the variance of the accuracies the choice explains."
        if effect.explained is None
        else f"The choice explains {percent(effect.explained, 0)} of the variance of the accuracies (adjusted R²)."
    )
    if found is None:
        return f"{said} No two candidates differ in this choice alone, so how much of it is due to others is open."
    spread = "" if found.deviation is None else f" with a standard deviation of {100 * found.deviation:.1f}"
    gap = f"{abs(100 * found.mean):.1f} points {'better' if found.mean >= 0 else 'worse'}"
    return (
        f"{said} Over {counted(found.pairs, 'pair')} of candidates that differ in nothing else and trained for as many "
        f"epochs, {first} is {gap} than {second}{spread}, "
        f"and better in {percent(found.won, 0)} of them (a tie counts half)."
    )


def state_counts(table: pd.DataFrame) -> str:
    """How many candidates came how far."""
    words = {"complete": "trained to the end", "pruned": "cut early", "failed": "failed", "waiting": "waiting"}
    parts = [
        f"{(table['state'] == state).sum():,} {word}"
        for state, word in words.items()
        if (table["state"] == state).any()
    ]
    diverged = int(table["diverged"].sum())
    return f"{len(table):,} candidates: {', '.join(parts)}" + (f"; {diverged:,} diverged" if diverged else "")


def failures(table: pd.DataFrame) -> list[dict[str, str]]:
    """Why candidates failed or diverged: for each reason its ``title`` with their number, ``reason``, and ``which``.

    Up to a hundred reasons: one that names a number of bytes is another for every candidate.
    """
    failed = (table["state"] == "failed") | (table["reason"] != "")
    bad = table[failed | table["diverged"]]
    kinds = failed.map({True: "failed", False: "diverged"})[bad.index]
    unsaid = {"failed": "no reason was recorded", "diverged": "the loss left the finite numbers"}
    found, told = [], 0
    groups = bad.groupby([kinds, "reason"], sort=False)
    for (kind, reason), group in itertools.islice(groups, _MOST_REASONS):
        told += len(group)
        named = [f"{row['id']} ({config_text(row)})" for _, row in group.head(_MOST_NAMED).iterrows()]
        more = f"; and {len(group) - _MOST_NAMED} more" if len(group) > _MOST_NAMED else ""
        found.append(
            {
                "title": f"{counted(len(group), 'candidate')} {kind}",
                "reason": str(reason)[:_MOST_REASON] or unsaid[str(kind)],
                "which": "; ".join(named) + more,
            }
        )
    if told < len(bad):
        title = f"{len(bad) - told:,} candidates for {len(groups) - _MOST_REASONS:,} more reasons"
        found.append({"title": title, "reason": "The column reason of results.csv has them.", "which": ""})
    return found


def config_text(row: pd.Series[Any]) -> str:
    """A candidate's configuration on one line."""
    return ", ".join(f"{name.removeprefix(CHOICE)} {row[name]}" for name in choice_columns(row.to_frame().T))


def settings_tables(run: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """What was asked, of what, with what and where: a list of names and values under each heading."""
    dataset = {key: value for key, value in run["dataset"].items() if key != "notes"}
    space = {**{key: value for key, value in run["space"].items() if key != "choices"}, **run["space"]["choices"]}
    settings = dict(run["settings"])
    if settings.get("augmentation") == AUTO and (decided := run.get("identity")):
        settings["augmentation"] = decided.get("augmentation") or NONE
    parts = {
        "Settings": settings,
        "Dataset": dataset,
        "Search space": space,
        "Versions": run["versions"],
        "Machine": run["machine"],
    }
    return {title: [(str(name), _value(value)) for name, value in part.items()] for title, part in parts.items()}


def _value(value: object) -> str:
    """A setting as text; a list as its items, no password of a storage address."""
    if isinstance(value, list):
        return ", ".join(_value(item) for item in value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return CREDENTIALS.sub("", text)


def _table(table: pd.DataFrame, figures: tuple[str, ...], *, states: bool) -> Table:
    """Accuracies come first: a narrow screen cuts off what comes last."""
    choices = choice_columns(table)
    accuracies = [name for name in figures if name.endswith("accuracy")]
    others = [name for name in figures if name not in accuracies and name in table]
    columns = [
        Column("rank", kind="figure"),
        *(replace(_FORMATS[name][0], kind="figure") for name in accuracies),
        *(Column(name.removeprefix(CHOICE), numeric=_is_numeric(table[name]), kind="choice") for name in choices),
        *(replace(_FORMATS[name][0], kind="figure") for name in others),
        *([Column("state", numeric=False)] if states else []),
        Column("id", numeric=False),
    ]
    rows = []
    records: list[Any] = table.to_dict("records")
    for row in records:
        cells = [_figure(name, row) for name in ("rank", *accuracies)]
        cells += [_choice(table[name], row[name]) for name in choices]
        cells += [_figure(name, row) for name in others]
        cells += [Cell("diverged" if row["diverged"] else row["state"])] if states else []
        rows.append([*cells, Cell(row["id"])])
    return Table(columns, rows)


def _figure(name: str, row: Mapping[str, Any]) -> Cell:
    value = row[name]
    if pd.isna(value):
        return Cell("\N{EN DASH}", float("inf"))
    return Cell(str(value) if name == "rank" else _FORMATS[name][1](value), float(value))


def _choice(column: pd.Series[Any], value: str) -> Cell:
    """Sorted in the order the space declares."""
    return Cell(value, float(list(column.cat.categories).index(value)))


def _is_numeric(column: pd.Series[Any]) -> bool:
    return all(re.fullmatch(r"-?[\d.]+(e[-+]?\d+)?", value) for value in column.cat.categories)
