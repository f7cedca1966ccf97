"""Synchronous successive halving over epochs (Jamieson & Talwalkar 2016)."""

from __future__ import annotations

import math
from dataclasses import dataclass

# Measured on all 720 ConvNets, digits 16×16, ten condensed images a class: see benchmarks/results and the README.
_RUNGS = ((0.06, 1 / 4), (0.25, 1 / 6))
"""(share of all epochs, share of the candidates that goes on)."""


@dataclass(frozen=True)
class Rung:
    """A round of the search.

    Args:
        epochs: how long every candidate of the round trains, from its beginning.
        candidates: how many take part.
    """

    epochs: int
    candidates: int


def halving_rungs(candidates: int, epochs: int, finalists: int) -> list[Rung]:
    """The rounds of a search in which most candidates are cut early.

    A survivor's longer training starts anew: a round costs four or more times what the one before gave it, so that
    repeating those epochs costs a few per cent, and no weights need be kept, moved, or survive a crash.

    Args:
        candidates: that take part in the first round.
        epochs: of the last round, a training in full.
        finalists: at least this many take part in the last round, and three times as many where there are.
    """
    rungs = []
    left = candidates
    for share, survive in _RUNGS:
        length = math.ceil(epochs * share)
        keep = min(left, max(3 * finalists, math.ceil(left * survive)))
        if keep < left and length < epochs:
            rungs.append(Rung(length, left))
            left = keep
    return [*rungs, Rung(epochs, left)]
