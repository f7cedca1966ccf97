"""From the study to what people read: one row a candidate, and the summary."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd
from optuna.trial import TrialState

from nasproxy.analysis.correlation import proxy_order, spearman
from nasproxy.analysis.pareto import front_numbers
from nasproxy.search.campaign import Campaign
from nasproxy.search.costs import Cost
from nasproxy.search.settings import OBJECTIVES
from nasproxy.search.study import Measurement, Study, mean_score
from nasproxy.search.task import PROXY, WHOLE, Key
from nasproxy.spaces.candidate import Candidate
from nasproxy.spaces.space import ABSENT

_STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


def results_table(
    candidates: Sequence[Candidate],
    costs: Mapping[str, Cost],
    study: Study,
    ranking: Sequence[Candidate],
    objectives: Sequence[str] = ("accuracy",),
    finalists: Sequence[Candidate] | None = None,
    choices: Iterable[str] = (),
    repeats: int = 1,
) -> pd.DataFrame:
    """One row a candidate: the ranked ones best first, then what has no rank yet, then failures.

    A candidate that a time budget kept from going on is ``waiting``, with a rank if it was measured.

    Columns: rank, id, state, ``params_<choice>`` for each of ``choices`` and whatever else the candidates have,
    proxy_epochs, proxy_accuracy, proxy_cross_entropy (nats), diverged, parameters, multiply_adds, latency_ms (only if
    that is an objective), seconds (on the proxy, all rungs), whole_accuracy, whole_cross_entropy, test_accuracy,
    whole_seconds, pareto, reason. Accuracies are fractions; proxy_* are of the longest training that has all of its
    ``repeats``, by which candidates are ranked, or else of the longest; whole_* are of the ``finalists``, by default of
    all that were ever trained on the whole data (before a resume others may have been finalists). One that diverged in
    any of its repeats has accuracies of 0 and no cross-entropy there, as on the proxy. ``pareto`` marks the candidates
    trained in full that no other such candidate beats in all ``objectives``; where accuracy is the only one, in
    accuracy and multiply-adds.
    """
    by_candidate: dict[str, list[tuple[Key, Measurement]]] = {candidate.id: [] for candidate in candidates}
    final = None if finalists is None else {candidate.id for candidate in finalists}
    for key, measurement in study.measurements.items():
        candidate_id, data, *_ = key
        if candidate_id in by_candidate and (data == PROXY or final is None or candidate_id in final):
            by_candidate[candidate_id].append((key, measurement))
    ranks = {candidate.id: number for number, candidate in enumerate(ranking, 1)}
    names = list(dict.fromkeys([*choices, *(name for candidate in candidates for name in candidate.config)]))
    rows = [
        _row(candidate, names, ranks, costs[candidate.id], study, by_candidate[candidate.id], repeats)
        for candidate in candidates
    ]
    table = pd.DataFrame(rows)
    if "latency" not in objectives:
        table = table.drop(columns="latency_ms")
    table.insert(list(table.columns).index("reason"), "pareto", _on_front(table, objectives))
    order = {"complete": 0, "pruned": 1, "waiting": 2, "failed": 3}
    keys = table.assign(state=table["state"].map(order), rank=table["rank"].fillna(math.inf))
    # Nullable, so that the ranks of others stay integers where a candidate failed.
    table = table.astype(dict.fromkeys(("rank", "proxy_epochs"), "Int64"))
    return table.loc[keys.sort_values(["rank", "state", "id"]).index].reset_index(drop=True)


def summarise(
    campaign: Campaign, table: pd.DataFrame, study: Study, objectives: Sequence[str] = ("accuracy",)
) -> dict[str, Any]:
    """The finalists in proxy order, the winner, how far both orders agree, and the counts: the JSON of a search.

    The winner is one with finite weights to hand over: of all its repeats, or where no finalist has that, of some. Of
    those with equal accuracy on the whole data it is the best in the other ``objectives``, the first of them first: no
    finalist beats it in all that was asked.
    """
    chosen = table[table["id"].isin([candidate.id for candidate in campaign.finalists])]
    rows: dict[str, Any] = {str(row["id"]): row for row in chosen.to_dict("records")}
    top = [_entry(number, candidate, rows[candidate.id]) for number, candidate in enumerate(campaign.finalists, 1)]
    trained = [entry for entry in top if entry["whole_accuracy"] is not None]
    order = proxy_order([rows[entry["id"]] for entry in trained])
    agreement = spearman(order, [entry["whole_accuracy"] for entry in trained])
    rungs = [
        {
            "epochs": rung.epochs,
            "candidates": len(_trained_for(rung.epochs, campaign, study)),
            "seconds": sum(
                m.seconds
                for (_, data, epochs, _), m in study.measurements.items()
                if (data, epochs) == (PROXY, rung.epochs)
            ),
        }
        for rung in campaign.rungs
    ]
    sound = {
        candidate
        for (candidate, data, *_), m in study.measurements.items()
        if data == WHOLE and m.failure is None and not m.scores[-1].diverged
    }
    ties = [*(OBJECTIVES[name] for name in objectives if name != "accuracy"), "whole_cross_entropy"]
    best = min(
        (entry for entry in trained if entry["id"] in sound),
        key=lambda entry: (
            -entry["whole_accuracy"],
            *(_or_infinite(rows[entry["id"]][name]) for name in ties),
            entry["rank"],
        ),
        default=None,
    )
    evaluated, failed = int(table["rank"].notna().sum()), int((table["state"] == "failed").sum())
    return {
        "candidates": campaign.planned,
        "evaluated": evaluated,
        "diverged": int(table["diverged"].sum()),
        "failed": failed + len(top) - len(trained),
        "not_reached": campaign.planned - evaluated - failed,
        "budget_spent": campaign.cut_short,
        "rungs": rungs,
        "top": top,
        "winner": best,
        "agreement": {**asdict(agreement), "interval": list(agreement.interval) if agreement.interval else None},
    }


def _trained_for(epochs: int, campaign: Campaign, study: Study) -> set[str]:
    """Ids of those who trained on the proxy for so long, in one training or as a part of one.

    Who failed or diverged in a rung counts in it. Where one training goes through all rungs, nobody knows how far one
    that failed came: it counts in the first.
    """
    first = epochs == campaign.rungs[0].epochs
    found = set()
    for (candidate, data, asked, _), measurement in study.measurements.items():
        took_part = first if campaign.in_one_training else asked == epochs
        if data == PROXY and (took_part or (measurement.scores and measurement.scores[-1].epoch >= epochs)):
            found.add(candidate)
    return found


def _row(
    candidate: Candidate,
    choices: Sequence[str],
    ranks: Mapping[str, int],
    cost: Cost,
    study: Study,
    measurements: Sequence[tuple[Key, Measurement]],
    repeats: int,
) -> dict[str, Any]:
    on_proxy = [m for (_, data, *_), m in measurements if data == PROXY]
    longest, proxy = _ranked_by(measurements, repeats)
    score = mean_score(proxy) if proxy else None
    diverged = score is not None and score.diverged
    whole = [m for (_, data, *_), m in measurements if data == WHOLE and m.failure is None]
    final = mean_score(whole) if whole else None
    tested = [m.test_accuracy for m in whole if m.test_accuracy is not None]
    failures = [m.failure for _, m in measurements if m.failure is not None]
    return {
        "rank": ranks.get(candidate.id),
        "id": candidate.id,
        "state": _STATES.get(study.states.get(candidate.id, TrialState.WAITING), "waiting"),
        **{f"params_{name}": candidate.config.get(name, ABSENT) for name in choices},
        "proxy_epochs": longest if longest is None or diverged else max(m.scores[-1].epoch for m in proxy),
        "proxy_accuracy": None if score is None else score.accuracy,
        "proxy_cross_entropy": None if score is None else _finite(score.cross_entropy),
        "diverged": diverged,
        "parameters": cost.parameters,
        "multiply_adds": cost.multiply_adds,
        "latency_ms": study.latency_ms(candidate.id),
        "seconds": sum(m.seconds for m in on_proxy),
        "whole_accuracy": None if final is None else final.accuracy,
        "whole_cross_entropy": None if final is None else _finite(final.cross_entropy),
        "test_accuracy": None if not tested else 0.0 if final and final.diverged else sum(tested) / len(tested),
        "whole_seconds": sum(m.seconds for m in whole) if whole else None,
        "reason": cost.failure or next(iter(failures), None),
    }


def _ranked_by(measurements: Sequence[tuple[Key, Measurement]], repeats: int) -> tuple[int | None, list[Measurement]]:
    """Epochs and repeats of the longest training on the proxy that has all of its repeats, or else of the longest."""
    found: dict[int, list[Measurement]] = {}
    for (_, data, epochs, _), measurement in sorted(measurements, key=lambda one: one[0]):
        if data == PROXY and measurement.failure is None:
            found.setdefault(epochs, []).append(measurement)
    longest = max(found, key=lambda epochs: (len(found[epochs]) >= repeats, epochs), default=None)
    return longest, [] if longest is None else found[longest]


def _on_front(table: pd.DataFrame, objectives: Sequence[str]) -> pd.Series[bool]:
    sizes = [OBJECTIVES[name] for name in objectives if name != "accuracy"] or ["multiply_adds"]
    whole = table[(table["state"] == "complete") & ~table["diverged"]]
    losses = pd.concat([-whole["proxy_accuracy"], whole[sizes]], axis=1).astype(float)
    fronts = pd.Series(front_numbers(losses.to_numpy().tolist()), index=whole.index, dtype=float)
    return fronts.reindex(table.index).eq(0)


def _entry(rank: int, candidate: Candidate, row: Mapping[str, Any]) -> dict[str, Any]:
    figures = ("proxy_accuracy", "whole_accuracy", "test_accuracy")
    return {
        "rank": rank,
        "id": candidate.id,
        "config": candidate.config,
        **{name: None if pd.isna(row[name]) else float(row[name]) for name in figures},
        "parameters": int(row["parameters"]),
        "multiply_adds": int(row["multiply_adds"]),
        **({"latency_ms": float(row["latency_ms"])} if "latency_ms" in row else {}),
    }


def _or_infinite(value: Any) -> float:
    """A finalist's figure; the table has no cross-entropy for one that diverged."""
    return math.inf if pd.isna(value) else float(value)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
