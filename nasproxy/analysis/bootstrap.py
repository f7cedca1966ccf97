"""Spearman's rho over thousands of bootstrap draws at once, of several proxies on the same draws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import ArrayLike

Scores = Float64[np.ndarray, "candidates _"]
"""A row for each candidate, a column for each repeated training."""

_CHUNK = 1_000_000  # numbers resampled at a time; all draws of 720 candidates would take half a gigabyte at once


def bootstrap_rhos(
    proxies: Sequence[Scores], whole: Scores, *, resamples: int = 10_000, seed: int = 0
) -> Float64[np.ndarray, "proxies resamples"]:
    """Spearman's rho of each proxy with ``whole``, for draws of candidates, each with the mean of its repeats.

    A draw takes as many candidates as there are, with replacement; it is the same for all proxies, so that differences
    between two rows are paired. The noise of the trainings is in the means, and in which candidates are drawn.

    Repeats are not drawn: draws of them carry that noise twice, so that rho is lower on them than it is.

    Args:
        proxies: one array each, without NaN; numbers of repeats may differ.
        whole: of the same candidates, without NaN.
        resamples: number of draws.
        seed: of the draws.

    Returns:
        A row for each proxy; NaN for a draw in which a side is constant.
    """
    rng = np.random.default_rng(seed)
    means, target = [mean_of_repeats(proxy) for proxy in proxies], mean_of_repeats(whole)
    draws = [_rhos(means, target, index) for index in _indices(len(whole), resamples, rng)]
    joined: Float64[np.ndarray, "proxies resamples"] = np.concatenate(draws, axis=1)
    return joined


def as_scores(values: ArrayLike) -> Scores:
    """Values, or rows of repeats, as rows of repeats."""
    scores = np.asarray(values, dtype=np.float64)
    return scores[:, None] if scores.ndim == 1 else scores


def mean_of_repeats(scores: Float64[np.ndarray, "*rows repeats"]) -> Float64[np.ndarray, "*rows"]:
    """Means over the last axis; the same repeats in another order have the same mean to the last bit, and stay tied."""
    means: Float64[np.ndarray, "*rows"] = np.sort(scores, axis=-1).sum(-1) / max(1, scores.shape[-1])
    return means


def _indices(count: int, resamples: int, rng: np.random.Generator) -> Iterator[Int64[np.ndarray, "rows count"]]:
    rows = max(1, _CHUNK // count)
    for start in range(0, resamples, rows):
        yield rng.integers(count, size=(min(rows, resamples - start), count))


def _rhos(
    proxies: Sequence[Float64[np.ndarray, " n"]], whole: Float64[np.ndarray, " n"], index: Int64[np.ndarray, "rows n"]
) -> Float64[np.ndarray, "proxies rows"]:
    """The ranks in a draw follow from how often each candidate is in it: nothing is sorted anew."""
    rows, count = index.shape
    flat = index + count * np.arange(rows)[:, None]
    counts = np.bincount(flat.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float64)
    ranks = _centred_ranks(whole, counts)
    return np.stack([_correlation(_centred_ranks(proxy, counts), ranks, counts) for proxy in proxies])


def _centred_ranks(
    values: Float64[np.ndarray, " n"], counts: Float64[np.ndarray, "rows n"]
) -> Float64[np.ndarray, "rows n"]:
    """The centred mid-rank of each value in draws that hold it ``counts`` times."""
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    ends = np.cumsum(np.bincount(group)) - 1
    upto = np.cumsum(counts[:, order], axis=1)[:, ends]
    before = np.concatenate([np.zeros((len(counts), 1)), upto[:, :-1]], axis=1)
    # The mid-rank is (before + upto + 1) / 2, the mean rank (n + 1) / 2: their difference is exact, and 0 if constant.
    centred: Float64[np.ndarray, "rows n"] = ((before + upto - counts.shape[1]) / 2)[:, group]
    return centred


def _correlation(
    a: Float64[np.ndarray, "rows n"], b: Float64[np.ndarray, "rows n"], weights: Float64[np.ndarray, "rows n"]
) -> Float64[np.ndarray, " rows"]:
    """Pearson's correlation of centred rows; NaN where one is zero."""
    weighted = weights * a
    scale = np.sqrt(np.einsum("rn,rn->r", weighted, a) * np.einsum("rn,rn,rn->r", weights, b, b, optimize=False))
    products = np.einsum("rn,rn->r", weighted, b)
    found = np.divide(products, scale, out=np.full(len(a), np.nan), where=scale > 0)
    clipped: Float64[np.ndarray, " rows"] = np.clip(found, -1, 1)
    return clipped
