"""When a condensation has come to its end before its last iteration."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean


def has_converged(losses: Sequence[float], patience: int) -> bool:
    """Whether the mean of the last ``patience`` losses is no lower than the mean of as many before them.

    Each outer iteration has a new network, so that single losses say little; only means of several can be compared.

    Args:
        losses: one an outer iteration.
        patience: how many are compared with how many; 0 never ends.
    """
    if not patience or len(losses) < 2 * patience:
        return False
    return fmean(losses[-patience:]) >= fmean(losses[-2 * patience : -patience])
