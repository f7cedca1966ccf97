"""Asynchronous halving: whether a training goes on is decided as its scores arrive.

The decisions are those of Optuna's ``SuccessiveHalvingPruner`` and ``HyperbandPruner``. These, like Ray Tune's
``AsyncHyperBandScheduler``, look at all that came before at each decision, which makes a search quadratic.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from heapq import heappop, heappush, heappushpop
from itertools import accumulate
from zlib import crc32

from nasproxy.search.halving import REDUCTION, pruning_levels
from nasproxy.spaces.candidate import Candidate
from nasproxy.training.train import Score


class Pruning:
    """Decides which trainings go on.

    Of those that have come to a level so far, the best quarter does: asynchronous successive halving (ASHA; Li et al.
    2018). Hyperband (Li et al. 2017) deals the candidates out to brackets, the first of which is judged at all levels,
    the next only from the second on, and so forth, which guards against cuts that come too early.

    Args:
        scheduler: a name out of ``PRUNERS``.
        candidates: all that take part; their order decides the bracket.
        epochs: of a training in full.
        seed: of the brackets.
    """

    def __init__(self, scheduler: str, candidates: Sequence[Candidate], epochs: int, seed: int) -> None:
        self.levels = pruning_levels(epochs)
        shares = _shares(epochs) if scheduler == "hyperband" else [1]
        # The levels of a bracket, the next one last.
        brackets = [[_Level(epoch) for epoch in reversed(self.levels[first:])] for first in range(len(shares))]
        bounds = list(accumulate(shares))
        # Optuna's way to draw by the name of a study: a run that is resumed finds its brackets as they were.
        draws = (crc32(f"nasproxy-{seed}_{number}".encode()) % bounds[-1] for number in range(len(candidates)))
        self._ahead = {c.id: [*brackets[bisect_right(bounds, draw)]] for c, draw in zip(candidates, draws, strict=True)}
        self._judged: dict[str, int] = {}
        self._stopped: set[str] = set()

    def goes_on(self, candidate: Candidate, score: Score) -> bool:
        """Whether a training that has come to ``score`` goes on; the same when it is asked again."""
        if score.epoch > self._judged.get(candidate.id, 0):
            self._judged[candidate.id] = score.epoch
            if not self._is_among_the_best(candidate, score):
                self._stopped.add(candidate.id)
        return candidate.id not in self._stopped

    def _is_among_the_best(self, candidate: Candidate, score: Score) -> bool:
        """Judges at each level that was ahead of the candidate, until it has come to one that stops it."""
        ahead = self._ahead[candidate.id]
        while ahead and score.epoch >= ahead[-1].epoch:
            if math.isnan(score.accuracy) or not ahead.pop().passes(score.accuracy):
                return False
        return True


def _shares(epochs: int) -> list[int]:
    """How many of the candidates, in proportion, each bracket of Hyperband gets."""
    first = (*pruning_levels(epochs), epochs)[0]
    brackets = math.floor(math.log(epochs / first, REDUCTION)) + 1
    return [math.ceil(brackets * REDUCTION**last / (last + 1)) for last in reversed(range(brackets))]


class _Level:
    """The scores with which candidates of a bracket have come to one level: the best quarter, and the others."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self._best: list[float] = []  # a heap with the lowest in front,
        self._others: list[float] = []  # and one of negated scores: the highest is in front

    def passes(self, accuracy: float) -> bool:
        """Takes in one more; whether it is in the best quarter so far, or the best while that is empty. Ties are in."""
        heappush(self._others, -heappushpop(self._best, accuracy))
        if len(self._best) < max(1, (len(self._best) + len(self._others)) // REDUCTION):
            heappush(self._best, -heappop(self._others))
        return accuracy >= self._best[0]
