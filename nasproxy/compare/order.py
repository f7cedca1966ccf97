"""In which order a proxy puts candidates, and which of them are trained on the whole data for it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import ArrayLike

from nasproxy.analysis.bootstrap import Scores, as_scores, mean_of_repeats
from nasproxy.analysis.top_k import top

_TIED = 2
"""At most this many times k candidates are trained for a proxy that has ties at its cut."""


def diverged_last(scores: ArrayLike, ties: ArrayLike) -> Scores:
    """The scores by which candidates are ranked: below all others where a repeat diverged, as a search ranks them.

    Args:
        scores: a row for each candidate, a score for each repeat.
        ties: what breaks ties; infinite for a candidate that diverged in a repeat.
    """
    found = as_scores(scores)
    diverged = np.isposinf(np.asarray(ties, dtype=np.float64))[:, None] & ~np.isnan(found)
    return np.where(diverged, -np.inf, found)


def ordering(scores: ArrayLike, ties: ArrayLike) -> Float64[np.ndarray, " candidates"]:
    """A number for each candidate, higher for a better one, equal where the proxy does not tell two apart.

    Args:
        scores: higher is better; the mean over the repeats counts.
        ties: what breaks ties, lower is better; infinite for a candidate that diverged in a repeat, which comes last.

    Returns:
        NaN for a candidate that lacks a score.
    """
    means = mean_of_repeats(diverged_last(scores, ties))
    keys = np.column_stack([means, -np.asarray(ties, dtype=np.float64)])
    there = ~np.isnan(means)
    order = np.full(len(means), np.nan)
    if there.any():
        order[there] = np.unique(np.nan_to_num(keys[there], nan=0.0), axis=0, return_inverse=True)[1].reshape(-1)
    return order


def finalists(order: Float64[np.ndarray, " candidates"], k: int, seed: int) -> Int64[np.ndarray, " chosen"]:
    """Positions of the best k; of those tied at the cut as many as make 2 k together, by a seeded draw.

    The draws that a top-k correlation is averaged over are then of candidates that all have been trained.
    """
    best = top(order, k, seed=seed)
    chosen: Int64[np.ndarray, " chosen"] = np.concatenate([best.certain, best.tied[: _TIED * k - len(best.certain)]])
    return chosen
