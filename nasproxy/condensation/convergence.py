"""What the losses of a condensation say: that it has come to its end, or that it came to nothing."""

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


def has_not_fallen(losses: Sequence[float]) -> bool:
    """Whether the mean of the last quarter of the losses is no lower than that of the first; of fewer than four, never.

    Args:
        losses: one an outer iteration, each of a freshly initialised network of one kind.
    """
    quarter = len(losses) // 4
    return quarter > 0 and fmean(losses[-quarter:]) >= fmean(losses[:quarter])
