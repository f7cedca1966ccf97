"""What each choice does: which of its values wins, by how much, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nasproxy.analysis.figures import explained_variance
from nasproxy.analysis.results import CHOICE, choice_columns

_BEST_SHARE = 0.1


@dataclass(frozen=True)
class ValueEffect:
    """The candidates that have one value of a choice.

    Args:
        value: as text.
        candidates: how many of them have a proxy accuracy.
        mean_rank: of theirs; those cut early stand behind all that went on, so that ranks compare where accuracies
            after different numbers of epochs do not.
        mean: of their proxy accuracies, a fraction.
        deviation: standard deviation (n - 1) of these; None for a single candidate.
        best: the highest.
        among_best: how many of the best tenth of all candidates have this value.
    """

    value: str
    candidates: int
    mean_rank: float
    mean: float
    deviation: float | None
    best: float
    among_best: int


@dataclass(frozen=True)
class PairedDifference:
    """Two values of a choice over candidates that differ in nothing else and were trained for as many epochs.

    Args:
        pairs: how many.
        mean: of the first's proxy accuracy minus the second's, a fraction.
        deviation: standard deviation (n - 1) of these differences; None for a single pair.
        won: share of the pairs in which the first is better; half a win where they are equal.
    """

    pairs: int
    mean: float
    deviation: float | None
    won: float


@dataclass(frozen=True)
class ChoiceEffect:
    """A choice and its values, the best first.

    Args:
        name: of the choice.
        explained: share of the accuracies' variance that it alone explains; None where there are too few candidates.
        ranked: the values by mean rank.
        difference: between the first two; None where no two candidates differ in this choice alone.
    """

    name: str
    explained: float | None
    ranked: tuple[ValueEffect, ...]
    difference: PairedDifference | None


def choice_effects(table: pd.DataFrame) -> list[ChoiceEffect]:
    """The effect of every choice that has two values or more, that which explains most first.

    Args:
        table: of ``load_run``; candidates without a proxy accuracy or a rank are left out.
    """
    scored = table.dropna(subset=["proxy_accuracy", "rank"])
    names = [name for name in choice_columns(table) if len(scored[name].unique()) > 1]
    return sorted((_effect(scored, name) for name in names), key=lambda effect: -(effect.explained or 0.0))


def best_count(table: pd.DataFrame) -> int:
    """How many candidates are the best tenth, at least one."""
    return max(1, math.ceil(_BEST_SHARE * int(table["proxy_accuracy"].notna().sum())))


def _effect(scored: pd.DataFrame, column: str) -> ChoiceEffect:
    best = scored.nsmallest(best_count(scored), "rank")
    values = [
        _value(str(value), group, int((best[column] == value).sum()))
        for value, group in scored.groupby(column, observed=True)
    ]
    values.sort(key=lambda value: value.mean_rank)
    name = column.removeprefix(CHOICE)
    difference = _difference(scored, column, values[0].value, values[1].value)
    return ChoiceEffect(name, explained_variance(scored, name), tuple(values), difference)


def _value(value: str, group: pd.DataFrame, among_best: int) -> ValueEffect:
    accuracy = group["proxy_accuracy"].to_numpy(np.float64)
    return ValueEffect(
        value=value,
        candidates=len(group),
        mean_rank=float(group["rank"].to_numpy(np.float64).mean()),
        mean=float(accuracy.mean()),
        deviation=_deviation(accuracy),
        best=float(accuracy.max()),
        among_best=among_best,
    )


def _difference(scored: pd.DataFrame, column: str, first: str, second: str) -> PairedDifference | None:
    alike = [name for name in choice_columns(scored) if name != column] + ["proxy_epochs"]
    sides = [
        scored.loc[scored[column] == value, [*alike, "proxy_accuracy"]].astype(dict.fromkeys(alike, str))
        for value in (first, second)
    ]
    pairs = sides[0].merge(sides[1], on=alike, suffixes=("_first", "_second"))
    if pairs.empty:
        return None
    gaps = (pairs["proxy_accuracy_first"] - pairs["proxy_accuracy_second"]).to_numpy(np.float64)
    won = float(((gaps > 0) + 0.5 * (gaps == 0)).mean())
    return PairedDifference(len(gaps), float(gaps.mean()), _deviation(gaps), won)


def _deviation(values: np.ndarray) -> float | None:
    return float(values.std(ddof=1)) if len(values) > 1 else None
