"""How good the candidates are that a proxy puts first, where it need not say which of them is first."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import ArrayLike

from nasproxy.analysis.bootstrap import as_scores, bootstrap_rhos, mean_of_repeats
from nasproxy.analysis.correlation import (
    CONSTANT_DRAWS,
    FEWEST_FOR_INTERVAL,
    RankAgreement,
    paired_scores,
    percentile_interval,
    spearman,
)

_DRAWS = 100


@dataclass(frozen=True)
class Top:
    """The best k by some scores: those that are among them in any case, and those tied at the cut.

    Args:
        certain: positions of those above the cut, best first.
        tied: positions of those level with it, in a random order; empty where all of them fit.
        k: how many there are to be; fewer where there are no more.
    """

    certain: Int64[np.ndarray, " certain"]
    tied: Int64[np.ndarray, " tied"]
    k: int

    def draws(self, count: int, seed: int) -> list[Int64[np.ndarray, " k"]]:
        """``count`` equally likely choices of k; a single one where nothing is tied at the cut."""
        if not len(self.tied):
            return [self.certain]
        rng = np.random.default_rng(seed)
        missing = self.k - len(self.certain)
        return [np.concatenate([self.certain, rng.permutation(self.tied)[:missing]]) for _ in range(count)]


def top(scores: ArrayLike, k: int, *, seed: int = 0) -> Top:
    """The ``k`` highest ``scores``; NaNs never belong to them.

    Args:
        scores: a value for each candidate.
        k: at least 1.
        seed: of the order of those tied at the cut.

    Raises:
        ValueError: ``k`` is less than 1.
    """
    if k < 1:
        raise ValueError(f"expected k >= 1, got {k}")
    values = np.asarray(scores, dtype=np.float64)
    order = np.argsort(-values, kind="stable")
    order = order[~np.isnan(values[order])]
    if len(order) <= k or values[order[k - 1]] != values[order[k]]:
        return Top(order[:k], np.empty(0, dtype=np.int64), min(k, len(order)))
    cut = values[order[k - 1]]
    tied = np.random.default_rng(seed).permutation(order[values[order] == cut])
    return Top(order[values[order] > cut], tied, k)


def top_agreement(
    proxy: ArrayLike,
    whole: ArrayLike,
    k: int,
    *,
    order: ArrayLike | None = None,
    draws: int = _DRAWS,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> RankAgreement:
    """Spearman's rho and Kendall's tau-b among the ``k`` candidates that the proxy puts first.

    Where scores are tied at the cut, a seeded draw says which of them belong to the k; figures are the means over
    ``draws`` of these, and the bootstrap is spread over them. Draws in which a side is constant have no figure.

    Args:
        proxy: n values, or n rows of repeats.
        whole: the same, paired with ``proxy``; one of the k that lacks it is left out, not replaced.
        k: at least 1.
        order: what the k are chosen by, where it is not the mean of ``proxy``: the same with ties broken, say.
        draws: at least 1.
        resamples: bootstrap draws of all of them together.
        seed: of all draws.
        level: of the interval.
    """
    first, second = as_scores(proxy), as_scores(whole)
    values = mean_of_repeats(first) if order is None else np.asarray(order, dtype=np.float64)
    chosen = [paired_scores(first[index], second[index]) for index in top(values, k, seed=seed).draws(draws, seed)]
    found = [spearman(*pairs, resamples=1, seed=seed, level=level) for pairs in chosen]
    usable = [agreement for agreement in found if agreement.rho is not None and agreement.kendall is not None]
    if not usable:
        return found[0]
    mean = replace(
        usable[0],
        rho=float(np.mean([agreement.rho for agreement in usable])),
        kendall=float(np.mean([agreement.kendall for agreement in usable])),
        interval=None,
    )
    if mean.n < FEWEST_FOR_INTERVAL:
        return mean
    each = -(-resamples // len(chosen))
    rhos = [
        bootstrap_rhos([one], other, resamples=each, seed=seed + number)[0]
        for number, (one, other) in enumerate(chosen)
    ]
    interval = percentile_interval(np.concatenate(rhos), level)
    return replace(mean, interval=interval, reason=None if interval else CONSTANT_DRAWS)


def precision_at_k(proxy: ArrayLike, whole: ArrayLike, k: int) -> float | None:
    """The share of the proxy's top k that is among the k best on the whole data.

    Ties at either cut are as if broken at random: what is returned is the mean over all ways to break them. None where
    there are no more than k pairs: all of them would be hits. By chance it is k / n.

    Args:
        proxy: n values, or n rows of repeats.
        whole: the same, paired with ``proxy``.
        k: at least 1.
    """
    first, second = (mean_of_repeats(side) for side in paired_scores(proxy, whole))
    if len(first) <= k:
        return None
    return float(_inclusion(first, k) @ _inclusion(second, k)) / k


def _inclusion(values: Float64[np.ndarray, " n"], k: int) -> Float64[np.ndarray, " n"]:
    """How probable it is that each belongs to the k highest."""
    found = top(values, k)
    share = np.zeros(len(values))
    share[found.certain] = 1.0
    share[found.tied] = (k - len(found.certain)) / max(1, len(found.tied))
    return share


@dataclass(frozen=True)
class Winner:
    """What becomes of the candidate that a proxy puts first, or of those that it puts first together, on average.

    Args:
        regret: what the best candidate known has more of accuracy on the whole data, by which it is known.
        test: test accuracy.
        test_regret: what the test accuracy of the best candidate known is more; it may be below 0.
        positions: of those put first that were trained on the whole data.
    """

    regret: float
    test: float
    test_regret: float
    positions: tuple[int, ...]


def winner(order: ArrayLike, whole: ArrayLike, test: ArrayLike) -> Winner | None:
    """What the proxy's winner is worth; None where no candidate that it puts first was trained on the whole data.

    Args:
        order: what the proxy orders candidates by, higher is better.
        whole: validation accuracies after training on the whole data, NaN where there was none.
        test: test accuracies of the same trainings.
    """
    values, accuracies, tests = (np.asarray(side, dtype=np.float64) for side in (order, whole, test))
    if np.isnan(values).all():
        return None
    put_first = np.flatnonzero(values == np.nanmax(values))
    trained = put_first[~np.isnan(accuracies[put_first])]
    if not len(trained):
        return None
    best = int(np.nanargmax(accuracies))
    reached, tested = float(accuracies[trained].mean()), float(tests[trained].mean())
    return Winner(
        float(accuracies[best]) - reached,
        tested,
        float(tests[best]) - tested,
        tuple(int(position) for position in trained),
    )
