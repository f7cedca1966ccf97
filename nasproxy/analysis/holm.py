"""Many comparisons at once: how small a p-value has to be when it is the smallest of many."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike


def holm(p_values: ArrayLike) -> Float64[np.ndarray, " n"]:
    """P-values adjusted for each other (Holm, *Scandinavian Journal of Statistics* 6, 1979).

    To reject what has an adjusted value of at most 0.05 is wrong anywhere in at most 5 % of families of comparisons,
    however the comparisons depend on each other.

    Args:
        p_values: n, each in [0, 1].

    Example:
        >>> holm([0.01, 0.04, 0.03]).tolist()
        [0.03, 0.06, 0.06]
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    steps = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))
    return adjusted
