"""Synchronous successive halving over epochs (Jamieson & Talwalkar 2016)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# What a few minutes on two cores allow; benchmarks/halving.py says what it keeps of the full ranking, and what longer
# rungs would.
CUTS = ((0.04, 1 / 4), (0.25, 1 / 6))
"""The cuts of the quick preset: after which share of all epochs, and the share of the candidates that goes on."""


PRUNERS = ("asha", "hyperband")
"""Asynchronous halving: a training goes on or stops as its scores arrive."""
REDUCTION = 4
"""Of those that have come to one of its levels, one in so many goes on."""


@dataclass(frozen=True)
class Rung:
    """A round of the search.

    Args:
        epochs: how long every candidate of the round trains, from its beginning.
        candidates: how many take part.
    """

    epochs: int
    candidates: int


def halving_rungs(
    candidates: int, epochs: int, finalists: int, cuts: Sequence[tuple[float, float]] = CUTS
) -> list[Rung]:
    """The rounds of a search in which most candidates are cut early.

    A survivor's longer training starts anew: a round costs four or more times what the one before gave it, so that
    repeating those epochs is a seventh of the quick preset's, and no weights need be kept, moved, or survive a crash.

    Args:
        candidates: that take part in the first round.
        epochs: of the last round, a training in full.
        finalists: at least one and a half times as many take part in the last round, where there are.
        cuts: share of all epochs and share of the candidates that goes on, first cut first; one that would keep all,
            or come no later than the one before, is left out.
    """
    rungs: list[Rung] = []
    left = candidates
    for share, survive in cuts:
        length = math.ceil(epochs * share)
        keep = min(left, max(math.ceil(1.5 * finalists), math.ceil(left * survive)))
        longer = not rungs or length > rungs[-1].epochs
        if keep < left and longer and length < epochs:
            rungs.append(Rung(length, left))
            left = keep
    return [*rungs, Rung(epochs, left)]


def pruning_levels(epochs: int) -> tuple[int, ...]:
    """Epochs after which asynchronous halving judges trainings of ``epochs``.

    The first is the quick preset's first cut; each other is :data:`REDUCTION` times the one before.
    """
    levels = [math.ceil(epochs * CUTS[0][0])]
    while levels[-1] < epochs:
        levels.append(levels[-1] * REDUCTION)
    return tuple(levels[:-1])
