"""Whether one proxy ranks better than another, or only looks so: a paired bootstrap of the difference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike

from nasproxy.analysis.bootstrap import Scores, as_scores, bootstrap_rhos, mean_of_repeats
from nasproxy.analysis.correlation import (
    CONSTANT_DRAWS,
    FEWEST_FOR_INTERVAL,
    percentile_interval,
    spearman,
    why_no_correlation,
)
from nasproxy.analysis.holm import holm


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
        p_value: of there being no difference; None where there is no interval.
        adjusted: the same for one of as many comparisons as were made (Holm).
    """

    first: str
    second: str
    difference: float | None
    interval: tuple[float, float] | None
    n: int
    reason: str | None
    level: float = 0.95
    p_value: float | None = None
    adjusted: float | None = None

    @property
    def told_apart(self) -> bool:
        """Whether the difference would be more than noise if it were the largest of all that were looked at."""
        return self.adjusted is not None and self.adjusted <= 1 - self.level


def rho_differences(
    proxies: Mapping[str, ArrayLike],
    whole: ArrayLike,
    *,
    resamples: int | None = None,
    seed: int = 0,
    level: float = 0.95,
) -> list[RhoDifference]:
    """The difference in Spearman's rho of each two proxies, both taken on the same bootstrap draws of candidates.

    Two proxies are judged on the candidates that have both their scores: what makes a candidate easy to rank then
    helps both, and cancels. The more proxies, the more pairs look different by chance: see ``adjusted``.

    Args:
        proxies: n values, or n rows of repeats, by name.
        whole: the same of the whole data; rows with a NaN are left out.
        resamples: bootstrap draws; None takes 10,000, or 200 for each pair where that is more: Holm's method multiplies
            the smallest p-value, 2 / (resamples + 1), by the number of pairs.
        seed: of the draws.
        level: of the intervals.
    """
    target = as_scores(whole)
    sides = {name: as_scores(scores) for name, scores in proxies.items()}
    pairs = list(combinations(sides, 2))
    draws = resamples or max(10_000, 200 * len(pairs))

    @cache
    def drawn(name: str, present: bytes) -> Float64[np.ndarray, " draws"]:
        rows = np.frombuffer(present, dtype=bool)
        rhos: Float64[np.ndarray, " draws"] = bootstrap_rhos(
            [sides[name][rows]], target[rows], resamples=draws, seed=seed
        )[0]
        return rhos

    found = [_difference(pair, sides, target, drawn, level) for pair in pairs]
    adjusted = iter(holm([one.p_value for one in found if one.p_value is not None]))
    return [one if one.p_value is None else replace(one, adjusted=float(next(adjusted))) for one in found]


def _difference(
    names: tuple[str, str],
    sides: Mapping[str, Scores],
    whole: Scores,
    drawn: Callable[[str, bytes], Float64[np.ndarray, " draws"]],
    level: float,
) -> RhoDifference:
    """Of two proxies; ``drawn`` gives the rhos of one on draws of the candidates that a mask leaves."""
    first, second = (sides[name] for name in names)
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
    gaps = drawn(names[0], present.tobytes()) - drawn(names[1], present.tobytes())
    interval = percentile_interval(gaps, level)
    if interval is None:
        return RhoDifference(*names, difference, None, count, CONSTANT_DRAWS, level)
    return RhoDifference(*names, difference, interval, count, None, level, bootstrap_p_value(gaps[~np.isnan(gaps)]))


def bootstrap_p_value(gaps: Float64[np.ndarray, " draws"]) -> float:
    """Twice the share of draws on the rarer side of 0, the difference itself counted as a draw: never 0."""
    rarer = min(int((gaps <= 0).sum()), int((gaps >= 0).sum()))
    return min(1.0, 2 * (rarer + 1) / (len(gaps) + 1))
