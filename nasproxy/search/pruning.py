"""Asynchronous halving: whether a training goes on is decided as its scores arrive, by one of Optuna's pruners."""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, SuccessiveHalvingPruner

from nasproxy.search.candidate import Candidate
from nasproxy.search.halving import REDUCTION, pruning_levels
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
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.levels = pruning_levels(epochs)
        first = self.levels[0] if self.levels else epochs
        pruner: BasePruner = SuccessiveHalvingPruner(min_resource=first, reduction_factor=REDUCTION)
        if scheduler == "hyperband":
            pruner = HyperbandPruner(min_resource=first, max_resource=epochs, reduction_factor=REDUCTION)
        # The name is hashed to find a candidate's bracket.
        study = optuna.create_study(direction="maximize", pruner=pruner, study_name=f"nasproxy-{seed}")
        self._trials = {candidate.id: study.ask() for candidate in candidates}
        self._stopped: set[str] = set()
        self._judged: dict[str, int] = {}

    def goes_on(self, candidate: Candidate, score: Score) -> bool:
        """Whether a training that has come to ``score`` goes on; the same when it is asked again."""
        if score.epoch > self._judged.get(candidate.id, 0):
            self._judged[candidate.id] = score.epoch
            trial = self._trials[candidate.id]
            trial.report(score.accuracy, score.epoch)
            if trial.should_prune():
                self._stopped.add(candidate.id)
        return candidate.id not in self._stopped
