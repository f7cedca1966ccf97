"""How far two orders of the same candidates agree: rank correlations, and an interval that says how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike
from scipy import stats

from nasproxy.analysis.bootstrap import Scores, as_scores, bootstrap_rhos, mean_of_repeats

# Three or four pairs are in perfect order by chance once in six or 24 times; draws from them vary far too little.
FEWEST_FOR_INTERVAL = 5
CONSTANT_DRAWS = "every bootstrap draw was constant on one side"


@dataclass(frozen=True)
class RankAgreement:
    """How far two orders agree.

    Args:
        rho: Spearman's rank correlation in [-1, 1]; None where it does not exist.
        interval: bootstrap interval of ``rho``, (low, high); None where it does not exist.
        kendall: Kendall's tau-b; None where ``rho`` is.
        n: pairs compared.
        reason: why a figure is None; None where none is.
        level: the share of intervals made in this way that should hold the true value.
    """

    rho: float | None
    interval: tuple[float, float] | None
    kendall: float | None
    n: int
    reason: str | None
    level: float = 0.95


def spearman(
    x: ArrayLike,
    y: ArrayLike,
    *,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> RankAgreement:
    """Spearman's rho of ``x`` and ``y``, its percentile bootstrap interval, and Kendall's tau-b.

    Ties take their average rank. The interval comes from drawing pairs with replacement (Efron and Tibshirani, *An
    Introduction to the Bootstrap*, 1993, section 13.3), see :func:`bootstrap_rhos`; draws in which either side is
    constant have no rho and are left out. Pairs with a NaN on either side are left out beforehand.

    Args:
        x: n values, or n rows of repeats, whose means are ranked.
        y: the same, paired with ``x``; it need not have as many repeats.
        resamples: bootstrap draws, at least 1.
        seed: of the draws.
        level: of the interval, between 0 and 1.

    Raises:
        ValueError: the lengths differ, or an option is outside its range.

    Example:
        >>> spearman([1, 2, 3, 4], [10, 20, 30, 40]).rho
        1.0
    """
    one, other = paired_scores(x, y)
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"expected resamples >= 1 and 0 < level < 1, got {resamples} and {level}")
    first, second = mean_of_repeats(one), mean_of_repeats(other)
    count = len(first)
    reason = why_no_correlation(first, second)
    if reason:
        return RankAgreement(None, None, None, count, reason, level)
    rho = float(np.clip(stats.spearmanr(first, second).statistic, -1, 1))
    kendall = float(np.clip(stats.kendalltau(first, second).statistic, -1, 1))
    if count < FEWEST_FOR_INTERVAL:
        return RankAgreement(rho, None, kendall, count, f"an interval takes {FEWEST_FOR_INTERVAL} pairs", level)
    draws = bootstrap_rhos([one], other, resamples=resamples, seed=seed)[0]
    interval = percentile_interval(draws, level)
    return RankAgreement(rho, interval, kendall, count, None if interval else CONSTANT_DRAWS, level)


def proxy_order(rows: Sequence[Mapping[Any, Any]]) -> list[float]:
    """A number for each candidate, higher for a better one on the proxy, equal for what it ties.

    Who was trained for longer comes before whom a score was held against earlier, and what diverged comes last.

    Args:
        rows: of ``results.csv``, with ``diverged``, ``proxy_epochs`` and ``proxy_accuracy``.
    """
    keys = [(not row["diverged"], row["proxy_epochs"], row["proxy_accuracy"]) for row in rows]
    levels = sorted(set(keys))
    return [float(levels.index(key)) for key in keys]


def paired_scores(x: ArrayLike, y: ArrayLike) -> tuple[Scores, Scores]:
    """Both as a row for each pair and a column for each repeat, without the pairs that hold a NaN.

    Raises:
        ValueError: they are not two sequences of one length.
    """
    first, second = as_scores(x), as_scores(y)
    if len(first) != len(second):
        raise ValueError(f"expected two sequences of one length, got {len(first)} and {len(second)}")
    present = ~(np.isnan(first).any(axis=1) | np.isnan(second).any(axis=1))
    return first[present], second[present]


def percentile_interval(draws: Float64[np.ndarray, " draws"], level: float) -> tuple[float, float] | None:
    """The middle ``level`` of bootstrap draws; NaNs are left out, and None is what no other draw leaves."""
    kept = draws[~np.isnan(draws)]
    if not len(kept):
        return None
    low, high = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def why_no_correlation(x: Float64[np.ndarray, " n"], y: Float64[np.ndarray, " n"]) -> str | None:
    """Why no rank correlation of ``x`` and ``y`` exists; None where it does."""
    if len(x) < 3:
        return f"a rank correlation needs at least 3 points, there {'is' if len(x) == 1 else 'are'} {len(x)}"
    constant = [side for side, values in (("first", x), ("second", y)) if np.all(values == values[0])]
    if constant:
        which = f"all {len(x)} {constant[0]} values" if len(constant) == 1 else f"all {len(x)} values of both sides"
        return f"{which} are equal, so they have no order"
    return None
