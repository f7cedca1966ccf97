"""Which candidates no other beats in everything: Pareto fronts (non-dominated sorting, Deb et al. 2002)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def front_numbers(losses: Sequence[Sequence[float]]) -> list[int]:
    """The Pareto front that each row belongs to: 0 where no row is at least as good in all and better in one.

    Rows of front 1 are those that only rows of front 0 beat, and so on. Equal rows share a front.

    Args:
        losses: a row for each candidate, a column for each objective, smaller is better; infinite values are allowed.
    """
    values = np.asarray(losses, dtype=float)
    if not len(values):
        return []
    # Equal rows stand or fall together. In lexicographic order only an earlier row can dominate a later one.
    unique, inverse = np.unique(values, axis=0, return_inverse=True)
    # Earlier rows are no worse in the first objective. Of a front, those that are best in the others speak for all.
    best: list[np.ndarray] = []
    numbers = np.empty(len(unique), dtype=int)
    for position, row in enumerate(unique[:, 1:]):
        number = _first_front(best, row)
        if number == len(best):
            best.append(row[np.newaxis])
        else:
            beaten = (best[number] >= row).all(axis=1)
            best[number] = np.vstack([best[number][~beaten], row])
        numbers[position] = number
    return [int(number) for number in numbers[inverse.reshape(-1)]]


def _first_front(best: list[np.ndarray], row: np.ndarray) -> int:
    """The first front none of whose members dominates ``row``; found by bisection, as fronts dominate each other."""
    low, high = 0, len(best)
    while low < high:
        middle = (low + high) // 2
        if bool((best[middle] <= row).all(axis=1).any()):
            low = middle + 1
        else:
            high = middle
    return low
