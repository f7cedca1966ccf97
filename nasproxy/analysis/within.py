"""Where a proxy fails: how it ranks within each value of each choice, and which values it favours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike
from scipy import stats

from nasproxy.analysis.bootstrap import Scores, as_scores, mean_of_repeats
from nasproxy.analysis.correlation import RankAgreement, spearman, why_no_correlation


@dataclass(frozen=True)
class WithinValue:
    """A proxy's figures among the candidates that have one value of one choice.

    Args:
        choice: such as ``norm``.
        value: such as ``batch``.
        agreement: among these candidates alone.
        bias: mean of the proxy's rank minus the whole data's, as a share of all ranks: in [-1, 1], above 0 where the
            proxy puts these candidates higher than they belong; None where a side orders nothing, as ``reason`` says.
        reason: why there is no bias, or None.
    """

    choice: str
    value: object
    agreement: RankAgreement
    bias: float | None
    reason: str | None


def within_values(
    choices: Mapping[str, Sequence[object]],
    proxy: ArrayLike,
    whole: ArrayLike,
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> list[WithinValue]:
    """The figures of each value of each choice, in the order in which the values are first met.

    Biases of the values of a choice, weighted by their candidates, add up to 0. A proxy that errs at random has a bias
    too: it draws every value towards the middle.

    Args:
        choices: for each choice the value of each candidate.
        proxy: n values, or n rows of repeats.
        whole: the same, paired with ``proxy``; candidates with a NaN on either side are left out.
        resamples: bootstrap draws of each interval.
        seed: of the draws.
    """
    first, second = as_scores(proxy), as_scores(whole)
    present = ~(np.isnan(first).any(axis=1) | np.isnan(second).any(axis=1))
    one, other = first[present], second[present]
    excess, reason = _rank_excess(one, other)
    found = []
    for choice, every in choices.items():
        values = [value for value, there in zip(every, present, strict=True) if there]
        for value in dict.fromkeys(values):
            rows = np.array([other_value == value for other_value in values])
            agreement = spearman(one[rows], other[rows], resamples=resamples, seed=seed)
            bias = None if excess is None else float(excess[rows].mean())
            found.append(WithinValue(choice, value, agreement, bias, reason))
    return found


def _rank_excess(proxy: Scores, whole: Scores) -> tuple[Float64[np.ndarray, " candidates"] | None, str | None]:
    """By how much of all ranks the proxy puts each candidate higher than the whole data do; or why nobody knows."""
    first, second = mean_of_repeats(proxy), mean_of_repeats(whole)
    if reason := why_no_correlation(first, second):
        return None, reason
    return (stats.rankdata(first) - stats.rankdata(second)) / (len(first) - 1), None
