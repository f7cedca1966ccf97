"""Whether one proxy ranks better than another, or only looks so: a paired bootstrap of the difference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from nasproxy.analysis.bootstrap import Scores, as_scores, bootstrap_rhos, mean_of_repeats
from nasproxy.analysis.correlation import (
    CONSTANT_DRAWS,
    FEWEST_FOR_INTERVAL,
    percentile_interval,
    spearman,
    why_no_correlation,
)


@dataclass(frozen=True)
class RhoDifference:
    """How much better one proxy ranks than another.

    Args:
        first: name of the one.
        second: name of the other.
        difference: rho of the first minus that of the second; None where it does not exist.
        interval: of it, (low, high); None where it does not exist.
        n: candidates compared, those that have both scores.
        reason: why a figure is None; None where none is.
        level: of the interval.
    """

    first: str
    second: str
    difference: float | None
    interval: tuple[float, float] | None
    n: int
    reason: str | None
    level: float = 0.95

    @property
    def told_apart(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


def rho_differences(
    proxies: Mapping[str, ArrayLike], whole: ArrayLike, *, resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> list[RhoDifference]:
    """The difference in Spearman's rho of each two proxies, both taken on the same bootstrap draws of candidates.

    Two proxies are judged on the candidates that have both their scores: what makes a candidate easy to rank then
    helps both, and cancels.

    Args:
        proxies: n values, or n rows of repeats, by name.
        whole: the same of the whole data; rows with a NaN are left out.
        resamples: bootstrap draws.
        seed: of the draws.
        level: of the intervals.
    """
    target = as_scores(whole)
    sides = {name: as_scores(scores) for name, scores in proxies.items()}
    return [
        _difference(pair, sides[pair[0]], sides[pair[1]], target, resamples, seed, level)
        for pair in combinations(sides, 2)
    ]


def _difference(
    names: tuple[str, str],
    first: Scores,
    second: Scores,
    whole: Scores,
    resamples: int,
    seed: int,
    level: float,
) -> RhoDifference:
    present = ~np.isnan(np.concatenate([first, second, whole], axis=1)).any(axis=1)
    one, other, target = first[present], second[present], whole[present]
    count = len(target)
    for name, side in zip(names, (one, other), strict=True):
        if reason := why_no_correlation(mean_of_repeats(side), mean_of_repeats(target)):
            return RhoDifference(*names, None, None, count, f"{name}: {reason}", level)
    rhos = [spearman(side, target, resamples=1).rho or 0.0 for side in (one, other)]
    difference = rhos[0] - rhos[1]
    if count < FEWEST_FOR_INTERVAL:
        why = f"an interval takes {FEWEST_FOR_INTERVAL} candidates"
        return RhoDifference(*names, difference, None, count, why, level)
    draws = bootstrap_rhos([one, other], target, resamples=resamples, seed=seed)
    interval = percentile_interval(draws[0] - draws[1], level)
    return RhoDifference(*names, difference, interval, count, None if interval else CONSTANT_DRAWS, level)
