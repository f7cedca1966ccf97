"""From the scores to the figures of each proxy: correlations with their intervals, regret, cost, and where it fails."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float64

from nasproxy.analysis.bootstrap import mean_of_repeats
from nasproxy.analysis.correlation import RankAgreement, spearman
from nasproxy.analysis.difference import rho_differences
from nasproxy.analysis.top_k import precision_at_k, top_agreement, winner
from nasproxy.analysis.within import WithinValue, within_values
from nasproxy.compare.names import WHOLE
from nasproxy.compare.order import diverged_last, finalists, ordering
from nasproxy.compare.scores import ComparisonScores
from nasproxy.compare.words import sentences

NOT_DEFINED = "ScoreError: "
"""What the failure of a score that is not defined for a network begins with."""
_RESAMPLES = 5000
_PAPERS_K = 10
_FIGURES = (
    "performance",
    "performance_deviation",
    "correlation",
    "correlation_interval",
    "correlation_n",
    "kendall",
    "single_correlation",
    "single_deviation",
    "overall_correlation",
    "overall_interval",
    "overall_kendall",
    "overall_n",
    "overall_single",
    "overall_single_deviation",
    "precision",
    "regret",
    "test_regret",
    "winners",
    "minutes",
    "making_minutes",
    "storage_images",
    "tops",
    "within",
)


def compare_scores(scores: ComparisonScores) -> dict[str, Any]:
    """The document of a comparison: a row for each proxy, the differences between them, and what all of it means.

    In a row ``performance`` is the test accuracy, after training on the whole data, of the candidate that the proxy
    puts first, or the mean of those that it puts first together (``winners``); ``regret`` what the best candidate known
    has more in validation accuracy on the whole data, ``test_regret`` in test accuracy. ``correlation`` and ``kendall``
    are of the proxy's top k, ``overall_…`` and ``precision`` of the random sample, ``tops`` of every k, ``within`` of
    the candidates of the sample with one value of a choice. Of several repeats, all of these are figures of means;
    ``performance_deviation`` is the standard deviation over repeats, ``single_…`` are mean and deviation of the rhos
    that each repeat has by itself, and None with a single repeat. A candidate that diverged in a repeat is ranked last.
    ``minutes`` are those that all scores took on one worker, without ``making_minutes`` of the images. A figure that
    does not exist is None, and ``reason`` says why.
    """
    facts, names = scores.facts, list(scores.proxies)
    scored = [name for name in names if scores.proxies[name]["reason"] is None]
    sampled = scores.sampled
    whole = scores.repeats("whole")
    k = _headline_k(scores)
    differences = rho_differences(
        {name: _ranked_by(scores, name)[sampled] for name in scored if name != WHOLE}, whole[sampled]
    )
    document = {
        "schema": 1,
        "dataset": facts["dataset"],
        "space": facts["space"],
        "candidates": len(scores),
        "preset": facts["preset"],
        "seed": facts["seed"],
        "repeats": facts["repeats"],
        "top_k": facts["top_k"],
        "k": k,
        "five_percent": round(0.05 * len(scores)),
        "sample": int(sampled.sum()),
        "precision_k": _precision_k(scores),
        "trained_on_whole": int((~np.isnan(whole).any(axis=1)).sum()),
        "best": _best(scores),
        "rows": [_row(scores, name) for name in names],
        "differences": [{**vars(d), "interval": _pair(d.interval), "told_apart": d.told_apart} for d in differences],
        "notes": facts["notes"],
    }
    return {**document, "text": sentences(document)}


def _row(scores: ComparisonScores, name: str) -> dict[str, Any]:
    about, nothing = scores.proxies[name], dict.fromkeys(_FIGURES)
    if about["reason"] is not None:
        return {"proxy": name, **nothing, "reason": about["reason"]}
    single, proxy = scores.repeats(name), _ranked_by(scores, name)
    whole, sampled = scores.repeats("whole"), scores.sampled
    order = ordering(single, scores.numbers(f"{name}.ties"))
    k, facts = _headline_k(scores), scores.facts
    best = _top(scores, proxy, whole, order, k)
    overall = spearman(proxy[sampled], whole[sampled], resamples=_RESAMPLES)
    first = winner(order, mean_of_repeats(whole), mean_of_repeats(scores.repeats("test")))
    among = finalists(order, facts["top_k"], facts["seed"])[:k]
    of_best, of_all = _single_rhos(single[among], whole[among]), _single_rhos(single[sampled], whole[sampled])
    precision = precision_at_k(order[sampled], mean_of_repeats(whole)[sampled], _precision_k(scores))
    return {
        "proxy": name,
        "performance": first and _number(first.test),
        "performance_deviation": first and _deviation(scores.repeats("test")[list(first.positions)]),
        "correlation": best.rho,
        "correlation_interval": _pair(best.interval),
        "correlation_n": best.n,
        "kendall": best.kendall,
        "single_correlation": of_best[0],
        "single_deviation": of_best[1],
        "overall_correlation": overall.rho,
        "overall_interval": _pair(overall.interval),
        "overall_kendall": overall.kendall,
        "overall_n": overall.n,
        "overall_single": of_all[0],
        "overall_single_deviation": of_all[1],
        "precision": precision,
        "regret": first and first.regret,
        "test_regret": first and _number(first.test_regret),
        "winners": first and [scores.columns["id"][position] for position in first.positions],
        "minutes": about["seconds"] / 60,
        "making_minutes": about["making_seconds"] / 60,
        "storage_images": about["images"],
        "tops": [_of_top(scores, proxy, whole, order, k) for k in _all_ks(scores)],
        "within": _within(scores, proxy[sampled], whole[sampled]),
        "reason": _reason(scores, name, best, overall, precision, first is None),
    }


def _ranked_by(scores: ComparisonScores, name: str) -> Float64[np.ndarray, "candidates repeats"]:
    """A proxy's scores as it ranks by them; the ground truth's, which they are compared with, stay as they are."""
    found = scores.repeats(name)
    return found if name == WHOLE else diverged_last(found, scores.numbers(f"{name}.ties"))


def _top(
    scores: ComparisonScores,
    proxy: Float64[np.ndarray, "candidates repeats"],
    whole: Float64[np.ndarray, "candidates repeats"],
    order: Float64[np.ndarray, " candidates"],
    k: int,
) -> RankAgreement:
    """Among the best k, of those that were trained on the whole data for this proxy."""
    chosen = np.full(len(order), np.nan)
    positions = finalists(order, scores.facts["top_k"], scores.facts["seed"])
    chosen[positions] = order[positions]
    return top_agreement(proxy, whole, k, order=chosen, resamples=_RESAMPLES, seed=scores.facts["seed"])


def _precision_k(scores: ComparisonScores) -> int:
    """The k of the table, or half of a smaller sample: of all of it every proxy would find the best."""
    return max(1, min(_headline_k(scores), int(scores.sampled.sum()) // 2))


def _headline_k(scores: ComparisonScores) -> int:
    """The paper's 10, or all of fewer finalists."""
    return min(_PAPERS_K, int(scores.facts["top_k"]))


def _all_ks(scores: ComparisonScores) -> list[int]:
    """5, 10, a twentieth of the candidates, and all finalists, each once."""
    return sorted({5, _PAPERS_K, max(1, round(0.05 * len(scores))), int(scores.facts["top_k"])})


def _of_top(
    scores: ComparisonScores,
    proxy: Float64[np.ndarray, "candidates repeats"],
    whole: Float64[np.ndarray, "candidates repeats"],
    order: Float64[np.ndarray, " candidates"],
    k: int,
) -> dict[str, Any]:
    """The figures of a proxy's best k; none where fewer were trained on the whole data for it."""
    top_k = int(scores.facts["top_k"])
    if k > top_k:
        why = f"of each proxy only the top {top_k} were trained on the whole data"
        return {"k": k, "n": 0, "correlation": None, "interval": None, "kendall": None, "reason": why}
    found = _top(scores, proxy, whole, order, k)
    figures = {"correlation": found.rho, "interval": _pair(found.interval), "kendall": found.kendall}
    return {"k": k, "n": found.n, **figures, "reason": found.reason}


def _single_rhos(
    proxy: Float64[np.ndarray, "n repeats"], whole: Float64[np.ndarray, "n repeats"]
) -> tuple[float | None, float | None]:
    """Mean and standard deviation of the rhos of each repeat by itself: another figure than the rho of the means."""
    rhos = [spearman(proxy[:, repeat], whole[:, repeat], resamples=1).rho for repeat in range(proxy.shape[1])]
    known = np.array([rho for rho in rhos if rho is not None])
    if len(known) < 2 or len(known) < len(rhos):
        return None, None
    return float(known.mean()), float(known.std(ddof=1))


def _deviation(repeats: Float64[np.ndarray, "n repeats"]) -> float | None:
    """The standard deviation over repeats of the mean of rows."""
    return _number(float(repeats.mean(0).std(ddof=1))) if repeats.shape[1] > 1 else None


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _within(
    scores: ComparisonScores,
    proxy: Float64[np.ndarray, "sampled repeats"],
    whole: Float64[np.ndarray, "sampled repeats"],
) -> list[dict[str, Any]]:
    kept = np.flatnonzero(scores.sampled)
    choices = {name: [scores.choice(name)[position] for position in kept] for name in scores.facts["choices"]}
    return [
        {
            "choice": row.choice,
            "value": row.value,
            "n": row.agreement.n,
            "correlation": row.agreement.rho,
            "interval": _pair(row.agreement.interval),
            "bias": row.bias,
            "reason": row.agreement.reason or row.reason,
        }
        for row in sorted(within_values(choices, proxy, whole, resamples=1000), key=_declared(scores))
    ]


def _declared(scores: ComparisonScores) -> Callable[[WithinValue], tuple[int, int]]:
    """The order in which the space declares choices and values."""
    choices = {name: list(values) for name, values in scores.facts["choices"].items()}
    return lambda row: (list(choices).index(row.choice), choices[row.choice].index(row.value))


def _reason(
    scores: ComparisonScores,
    name: str,
    best: RankAgreement,
    overall: RankAgreement,
    precision: float | None,
    no_winner: bool,
) -> str | None:
    """Why figures are missing, and what to know of those that are there."""
    found = []
    missing = int(np.isnan(scores.repeats(name)).any(axis=1).sum())
    failures = list(scores.proxies[name].get("failures") or ["it is not known why"])
    why = str(failures[0]).removeprefix(NOT_DEFINED).removesuffix(".")
    if missing == len(scores):
        return f"no candidate has a score: {why}"
    if missing:
        others = " (and other reasons, see the study)" if len(failures) > 1 else ""
        found.append(f"{missing} of {len(scores)} candidates have no score: {why}{others}")
    if best.reason:
        found.append(f"top {_headline_k(scores)}: {best.reason}")
    if overall.reason:
        found.append(f"random sample: {overall.reason}")
    if overall.rho is not None and precision is None:
        found.append(f"precision@{_precision_k(scores)}: the sample has too few candidates with both scores")
    if no_winner:
        found.append("no candidate that it puts first was trained on the whole data")
    return "; ".join(found) or None


def _best(scores: ComparisonScores) -> dict[str, Any] | None:
    """The candidate with the highest validation accuracy on the whole data."""
    accuracies, tests = mean_of_repeats(scores.repeats("whole")), mean_of_repeats(scores.repeats("test"))
    if np.isnan(accuracies).all():
        return None
    position = int(np.nanargmax(accuracies))
    return {
        "id": scores.columns["id"][position],
        "config": {name: scores.choice(name)[position] for name in scores.facts["choices"]},
        "whole_accuracy": float(accuracies[position]),
        "test_accuracy": _number(float(tests[position])),
    }


def _pair(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else list(interval)
