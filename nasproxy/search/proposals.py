"""Candidates that a sampler of Optuna's proposes one after another, none of them twice."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import Trial, TrialState

from nasproxy.search.candidate import Candidate
from nasproxy.search.space import Scalar

GENERATIONS = {"random": 10**9, "tpe": 10, "nsga2": 20}
"""Candidates proposed before the first of them is told; a random sampler does not listen."""

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "random": lambda seed: RandomSampler(seed=seed),
    "tpe": lambda seed: TPESampler(seed=seed),
    "nsga2": lambda seed: NSGAIISampler(seed=seed, population_size=GENERATIONS["nsga2"]),
}
_ATTEMPTS = 20  # a sampler that has converged proposes what it proposed before


class Proposals:
    """Asks a sampler for candidates and tells it how good each was.

    The sampler works on a study of its own in memory: the run's study holds measurements of several kinds, in states
    that a sampler would misread.

    Args:
        sampler: a name out of ``SAMPLERS``.
        candidates: all that may be proposed.
        choices: of the search space they come from.
        objectives: names of the values that will be told; ``accuracy`` is to be large, others small.
        seed: of the sampler.
    """

    def __init__(
        self,
        sampler: str,
        candidates: Sequence[Candidate],
        choices: Mapping[str, Sequence[Scalar]],
        objectives: Sequence[str],
        seed: int,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.generation = GENERATIONS[sampler]
        self._study = optuna.create_study(
            directions=["maximize" if name == "accuracy" else "minimize" for name in objectives],
            sampler=SAMPLERS[sampler](seed % 2**32),  # Optuna's seeds are that wide
        )
        self._distributions: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(tuple(values)) for name, values in choices.items()
        }
        self._new = {_key(candidate.config): candidate for candidate in candidates}
        self._trials: dict[str, Trial] = {}
        self._random = random.Random(seed)

    def ask(self, count: int) -> list[Candidate]:
        """``count`` candidates that have not been proposed, or as many as are left."""
        return [self._ask() for _ in range(min(count, len(self._new)))]

    def tell(self, candidate: Candidate, values: Sequence[float] | None) -> None:
        """The objectives of a proposed candidate; None where it failed."""
        trial = self._trials.pop(candidate.id)
        if values is None:
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._study.tell(trial, list(values))

    def _ask(self) -> Candidate:
        for _ in range(_ATTEMPTS):
            trial = self._study.ask(self._distributions)
            candidate = self._new.pop(_key(trial.params), None)
            if candidate is not None:
                self._trials[candidate.id] = trial
                return candidate
            self._study.tell(trial, state=TrialState.FAIL)
        # The sampler insists on what is known, or invalid: a random one takes it elsewhere.
        candidate = self._new.pop(self._random.choice(list(self._new)))
        self._study.enqueue_trial(dict(candidate.config))
        self._trials[candidate.id] = self._study.ask(self._distributions)
        return candidate


def _key(config: Mapping[str, Scalar]) -> str:
    return json.dumps(config, sort_keys=True)
