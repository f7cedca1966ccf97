"""How far two orders of the same candidates agree: rank correlations, and an interval that says how sure that is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64
from numpy.typing import ArrayLike
from scipy import stats

_CHUNK = (
    1_000_000  # Elements resampled at a time; 10,000 resamples of 720 candidates would take half a gigabyte at once.
)

# Three or four pairs are in perfect order by chance once in six or 24 times; draws from them vary far too little.
_FEWEST_FOR_INTERVAL = 5


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
    x: ArrayLike, y: ArrayLike, *, resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> RankAgreement:
    """Spearman's rho of ``x`` and ``y``, its percentile bootstrap interval, and Kendall's tau-b.

    Ties take their average rank. The interval comes from drawing pairs with replacement (Efron and Tibshirani, *An
    Introduction to the Bootstrap*, 1993, section 13.3); draws in which either side is constant have no rho and are
    left out. Pairs with a NaN on either side are left out beforehand.

    Args:
        x: n values.
        y: n values, paired with ``x``.
        resamples: bootstrap draws, at least 1.
        seed: of the draws.
        level: of the interval, between 0 and 1.

    Raises:
        ValueError: the lengths differ, or an option is outside its range.

    Example:
        >>> spearman([1, 2, 3, 4], [10, 20, 30, 40]).rho
        1.0
    """
    first, second = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"expected two sequences of one length, got shapes {first.shape} and {second.shape}")
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"expected resamples >= 1 and 0 < level < 1, got {resamples} and {level}")
    present = ~(np.isnan(first) | np.isnan(second))
    first, second = first[present], second[present]
    count = len(first)
    reason = _why_not(first, second)
    if reason:
        return RankAgreement(None, None, None, count, reason, level)
    rho = float(np.clip(stats.spearmanr(first, second).statistic, -1, 1))
    kendall = float(np.clip(stats.kendalltau(first, second).statistic, -1, 1))
    if count < _FEWEST_FOR_INTERVAL:
        return RankAgreement(rho, None, kendall, count, f"an interval takes {_FEWEST_FOR_INTERVAL} pairs", level)
    draws = _bootstrap(first, second, resamples, seed)
    if not len(draws):
        return RankAgreement(rho, None, kendall, count, "every bootstrap draw was constant on one side", level)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return RankAgreement(rho, (float(low), float(high)), kendall, count, None, level)


def _why_not(x: Float64[np.ndarray, " n"], y: Float64[np.ndarray, " n"]) -> str | None:
    """Why no rank correlation of ``x`` and ``y`` exists; None where it does."""
    if len(x) < 3:
        return f"a rank correlation needs at least 3 points, there {'is' if len(x) == 1 else 'are'} {len(x)}"
    constant = [side for side, values in (("first", x), ("second", y)) if np.all(values == values[0])]
    if constant:
        which = f"all {len(x)} {constant[0]} values" if len(constant) == 1 else f"all {len(x)} values of both sides"
        return f"{which} are equal, so they have no order"
    return None


def _bootstrap(
    x: Float64[np.ndarray, " n"], y: Float64[np.ndarray, " n"], resamples: int, seed: int
) -> Float64[np.ndarray, " kept"]:
    """Spearman's rho of ``resamples`` draws of pairs; those without one left out."""
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // len(x))
    kept = []
    for start in range(0, resamples, rows):
        index = rng.integers(len(x), size=(min(rows, resamples - start), len(x)))
        a, b = _centred_ranks(x[index]), _centred_ranks(y[index])
        scale = np.sqrt((a**2).sum(1) * (b**2).sum(1))
        varies = scale > 0
        kept.append((a * b).sum(1)[varies] / scale[varies])
    draws: Float64[np.ndarray, " kept"] = np.clip(np.concatenate(kept), -1, 1)
    return draws


def _centred_ranks(values: Float[np.ndarray, "rows n"]) -> Float64[np.ndarray, "rows n"]:
    # The mean rank is (n + 1) / 2 with ties too; subtracting it exactly leaves zeros, not rounding, in constant rows.
    centred: Float64[np.ndarray, "rows n"] = stats.rankdata(values, axis=1) - (values.shape[1] + 1) / 2
    return centred
