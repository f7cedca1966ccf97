"""Mixtures of proxies: two that fail on different candidates may rank better together than either does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64

from nasproxy.analysis.bootstrap import mean_of_repeats
from nasproxy.compare.runs import ProxyRun, accuracy_of
from nasproxy.search.study import Measurement
from nasproxy.spaces.candidate import Candidate
from nasproxy.training.train import Score

Repeats = Float64[np.ndarray, "candidates repeats"]


def mixed_run(runs: Mapping[str, ProxyRun], candidates: Sequence[Candidate]) -> ProxyRun:
    """What ranking by the mean of several proxies' standardised scores comes to, at what they cost together.

    Args:
        runs: of the parts, by name.
        candidates: all that they scored.
    """
    for name, run in runs.items():
        if run.reason is not None:
            return ProxyRun({}, 0.0, 0, f"its part {name} has no scores: {run.reason}")
    parts = [[run.measurements[candidate.id] for candidate in candidates] for run in runs.values()]
    scores = mix([np.array([[accuracy_of(m) for m in repeats] for repeats in part]) for part in parts])
    measurements = {
        candidate.id: [
            _joined([part[row][repeat] for part in parts], float(scores[row, repeat]))
            for repeat in range(scores.shape[1])
        ]
        for row, candidate in enumerate(candidates)
    }
    making, images = sum(run.making for run in runs.values()), sum(run.images for run in runs.values())
    return ProxyRun(measurements, making, images)


def mix(parts: Sequence[Repeats]) -> Repeats:
    """The mean over ``parts`` of the scores, brought to mean 0 and standard deviation 1 over the candidates.

    Both are those of the candidates' means over their repeats, of the candidates that every part has scored. A part
    that scores all of them alike adds nothing to any.

    Args:
        parts: one array each, of the same candidates and numbers of repeats; NaN where there is no score.

    Returns:
        NaN for a candidate that a part lacks a score of.
    """
    missing = np.isnan(np.concatenate(parts, axis=1)).any(axis=1)
    total = np.zeros(parts[0].shape)
    for part in parts:
        means = mean_of_repeats(part[~missing])
        deviation = float(means.std()) if len(means) else 0.0
        if deviation > 0:
            total += (part - means.mean()) / deviation
    total[missing] = np.nan
    return total / len(parts)


def _joined(parts: Sequence[Measurement], score: float) -> Measurement:
    """The parts' measurements of one candidate as one; ties are broken by what breaks theirs, on average."""
    seconds = sum(part.seconds for part in parts)
    if failure := next((part.failure for part in parts if part.failure is not None), None):
        return Measurement((), seconds, failure=failure)
    ties = sum(part.scores[-1].cross_entropy for part in parts) / len(parts)
    return Measurement((Score(1, score, ties),), seconds)
