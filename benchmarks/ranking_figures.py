"""From the scores of ``ranking_ablation.py`` to its table: how well each contender ranks, and if better than random."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64
from ranking_contenders import CONTENDERS, RIVAL, Contender
from result_file import markdown

from nasproxy.analysis.bootstrap import bootstrap_rhos
from nasproxy.analysis.correlation import percentile_interval, spearman
from nasproxy.analysis.difference import bootstrap_p_value
from nasproxy.analysis.holm import holm

RESAMPLES, LEVEL = 10_000, 0.95
_DASH, _MINUS, _RHO = "\N{EN DASH}", "\N{MINUS SIGN}", "\N{GREEK SMALL LETTER RHO}"

Columns = Float64[np.ndarray, "candidates sets"]
Draws = Float64[np.ndarray, " resamples"]


def sets_of(document: Mapping[str, Any], contender: Contender) -> list[dict[str, Any]]:
    """The sets that candidates were trained on for a contender, by number."""
    sets = [s for s in document["sets"] if s["images"] == contender.images and contender.training in s]
    return sorted(sets, key=lambda s: int(s["set"]))


def scores_of(document: Mapping[str, Any], contender: Contender) -> Columns:
    """A row for each candidate, a column for each set."""
    of_sets = [s[contender.training]["scores"] for s in sets_of(document, contender)]
    return np.array([[scores[c["id"]][contender.score] for scores in of_sets] for c in document["candidates"]])


def figures(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each contender that has scores.

    ``rho`` is the mean over sets, each ranked by itself. A bootstrap draw takes candidates with replacement, the same
    for all contenders, and sets with replacement, for each contender apart. ``adjusted`` are Holm's p-values of all
    differences from random.
    """
    there = [contender for contender in CONTENDERS if sets_of(document, contender)]
    whole = np.array([candidate["whole"] for candidate in document["candidates"]])
    every = {contender.name: scores_of(document, contender) for contender in there}
    if not there:
        return []
    rows = [_figures(document, contender, every[contender.name], whole) for contender in there]
    draws = dict(zip(every, _draws(list(every.values()), whole), strict=True))
    for row in rows:
        row["interval"] = percentile_interval(draws[row["contender"]], LEVEL)
    if RIVAL in every:
        _compare(rows, draws)
    return rows


def _figures(
    document: Mapping[str, Any], contender: Contender, scores: Columns, whole: Float64[np.ndarray, " candidates"]
) -> dict[str, Any]:
    norms = [candidate["config"].get("norm") for candidate in document["candidates"]]
    sets = sets_of(document, contender)
    making = [s["making"]["processor_seconds"] for s in sets if s["making"] is not None]
    return {
        "contender": contender.name,
        "sets": scores.shape[1],
        "rho": _mean_rho(scores, whole),
        "of_sets": [_rho(column, whole) for column in scores.T],
        "of_mean_scores": _rho(scores, whole),
        "within": {norm: _within(scores, whole, [n == norm for n in norms]) for norm in dict.fromkeys(norms)},
        "seconds_making_a_set": fmean(making) if making else 0.0,
        "seconds_training_on_it": fmean(s[contender.training]["processor_seconds"] for s in sets),
        "teacher_seconds": fmean(s[contender.training]["teacher_seconds"] for s in sets),
    }


def _rho(scores: Float64[np.ndarray, "candidates ..."], whole: Float64[np.ndarray, " candidates"]) -> float | None:
    return spearman(scores, whole, resamples=1).rho


def _mean_rho(scores: Columns, whole: Float64[np.ndarray, " candidates"]) -> float | None:
    """Over sets; None where one of them orders nothing."""
    rhos = [_rho(column, whole) for column in scores.T]
    return None if None in rhos else fmean(rho for rho in rhos if rho is not None)


def _within(scores: Columns, whole: Float64[np.ndarray, " candidates"], members: Sequence[bool]) -> dict[str, Any]:
    rows = np.array(members)
    (draws,) = _draws([scores[rows]], whole[rows])
    return {
        "n": int(rows.sum()),
        "rho": _mean_rho(scores[rows], whole[rows]),
        "interval": percentile_interval(draws, LEVEL),
    }


def _draws(every: Sequence[Columns], whole: Float64[np.ndarray, " candidates"]) -> list[Draws]:
    """Mean rhos of the sets of each contender, on the same draws of candidates and its own draws of sets."""
    columns = [column[:, None] for scores in every for column in scores.T]
    rhos = iter(bootstrap_rhos(columns, whole[:, None], resamples=RESAMPLES))
    rng, draws = np.random.default_rng(0), list[Draws]()
    for scores in every:
        mine = np.stack([next(rhos) for _ in scores.T])
        picked = rng.integers(len(mine), size=mine.shape)
        draws.append(np.take_along_axis(mine, picked, axis=0).mean(axis=0))
    return draws


def _compare(rows: Sequence[dict[str, Any]], draws: Mapping[str, Draws]) -> None:
    """Adds to each row its difference from random sets."""
    rival = next(row for row in rows if row["contender"] == RIVAL)
    others = [row for row in rows if row is not rival and row["rho"] is not None and rival["rho"] is not None]
    values = []
    for row in others:
        gaps = draws[row["contender"]] - draws[RIVAL]
        values.append(bootstrap_p_value(gaps[~np.isnan(gaps)]))
        interval = percentile_interval(gaps, LEVEL)
        row["from_random"] = {"difference": row["rho"] - rival["rho"], "interval": interval, "p_value": values[-1]}
    for row, adjusted in zip(others, holm(values), strict=True):
        row["from_random"]["adjusted"] = float(adjusted)


def table(document: Mapping[str, Any]) -> str:
    """The rows of a document in Markdown, with what they mean below."""
    rows = document["rows"]
    norms = list(rows[0]["within"]) if rows else []
    head = [f"{_RHO} [95 %]", f"{_MINUS} random's [95 %]", "p (Holm)", *(f"{_RHO} {norm}" for norm in norms)]
    head += [f"{_RHO} averaged sets", "making, s", "training, s"]
    body = {row["contender"]: _cells(row, norms) for row in rows}
    return f"{markdown('contender', head, body)}\n\n{_caption(document)}"


def _cells(row: Mapping[str, Any], norms: Sequence[str]) -> list[str]:
    other = row.get("from_random")
    making = f"{row['seconds_making_a_set']:.0f}"
    return [
        _with_interval(row["rho"], row["interval"]),
        _DASH if other is None else _with_interval(other["difference"], other["interval"], sign="+"),
        _DASH if other is None else f"{other['adjusted']:.2g}",
        *(_number(row["within"][norm]["rho"]) for norm in norms),
        _number(row["of_mean_scores"]),
        making + (f" + {row['teacher_seconds']:.0f}" if row["teacher_seconds"] else ""),
        f"{row['seconds_training_on_it']:.0f}",
    ]


def _with_interval(value: float | None, interval: Sequence[float] | None, sign: str = "") -> str:
    if interval is None:
        return _number(value, sign)
    return f"{_number(value, sign)} [{_number(interval[0], sign)}, {_number(interval[1], sign)}]"


def _number(value: float | None, sign: str = "") -> str:
    return _DASH if value is None else f"{value:{sign}.2f}".replace("-", _MINUS)


def _caption(document: Mapping[str, Any]) -> str:
    data, settings, machine = document["dataset"], document["settings"], document["machine"]
    sets = sorted({row["sets"] for row in document["rows"]})
    norms = [c["config"].get("norm") for c in document["candidates"]]
    counts = ", ".join(f"{norms.count(norm)} {norm}" for norm in dict.fromkeys(norms))
    height, width = data["image_size"]
    return (
        f"Spearman's {_RHO} with the validation accuracies of {settings['truth']}, {len(norms)} candidates ({counts});"
        f" the mean over {' or '.join(map(str, sets)) or 'no'} sets, each ranked by itself. Intervals are of bootstrap"
        f" draws of candidates and sets; few sets say little of how sets differ. {data['name']} at {height}×{width},"
        f" {settings['epochs']} epochs on a set, {settings['precision']}, seed {settings['seed']}, K for"
        f" {settings['condense_minutes']:g} minutes. Processor seconds of one thread for making a set (+ wall seconds"
        f" of the teacher, trained once for all) and for all trainings on it, on {machine['processor']}, which was not"
        f" idle; torch {document['versions']['torch']}."
    )


def as_csv(document: Mapping[str, Any]) -> bytes:
    """Every score: a row for each candidate, a column for each contender and set."""
    columns: dict[str, list[Any]] = {"id": [c["id"] for c in document["candidates"]]}
    for choice in document["candidates"][0]["config"]:
        columns[f"params_{choice}"] = [c["config"][choice] for c in document["candidates"]]
    columns["whole"] = [c["whole"] for c in document["candidates"]]
    for contender in CONTENDERS:
        for entry in sets_of(document, contender):
            scores = entry[contender.training]["scores"]
            column = [scores[c["id"]][contender.score] for c in document["candidates"]]
            columns[f"{contender.name}.{entry['set']}"] = column
    content = io.StringIO()
    pd.DataFrame(columns).to_csv(content, index=False)
    return content.getvalue().encode()
