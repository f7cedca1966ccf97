"""Candidates that a sampler of Optuna's proposes one after another, none of them twice."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import BaseTrial, Trial, TrialState

from nasproxy.spaces.candidate import Candidate
from nasproxy.spaces.space import ABSENT, Scalar

GENERATIONS = {"random": 10**9, "tpe": 10, "nsga2": 20}
"""Candidates proposed before the first of them is told; a random sampler does not listen."""

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "random": lambda seed: RandomSampler(seed=seed),
    "tpe": lambda seed: TPESampler(seed=seed),
    "nsga2": lambda seed: NSGAIISampler(seed=seed, population_size=GENERATIONS["nsga2"]),
}


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
        suggest: lets a trial choose a configuration; by default one value of each of ``choices``.
    """

    def __init__(
        self,
        sampler: str,
        candidates: Sequence[Candidate],
        choices: Mapping[str, Sequence[Scalar]],
        objectives: Sequence[str],
        seed: int,
        suggest: Callable[[BaseTrial], Mapping[str, Scalar]] | None = None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.generation = GENERATIONS[sampler]
        self._study = optuna.create_study(
            directions=["maximize" if name == "accuracy" else "minimize" for name in objectives],
            sampler=SAMPLERS[sampler](seed % 2**32),  # Optuna's seeds are that wide
        )
        self._choices = {
            name: {_key(value): place for place, value in enumerate(values)} for name, values in choices.items()
        }
        self._distributions: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(tuple(values)) for name, values in choices.items()
        }
        self._suggest = suggest
        self._new = {_key(candidate.config): candidate for candidate in candidates}
        self._places = {key: place for place, key in enumerate(self._new)}
        self._listens = sampler != "random"
        self._candidates = list(self._new.values())
        self._values = np.array([self._numbers(candidate.config) for candidate in self._candidates])
        self._left = np.ones(len(self._candidates), dtype=bool)
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
        trial, config = self._next()
        candidate = self._new.pop(_key(config), None)
        if candidate is None:
            self._study.tell(trial, state=TrialState.FAIL)
            # The sampler insists on what is known, or invalid: what is left closest to it comes next.
            candidate = self._new.pop(_key(self._closest(config).config))
            self._study.enqueue_trial(dict(candidate.config))
            trial, _ = self._next()
        self._left[self._places[_key(candidate.config)]] = False
        self._trials[candidate.id] = trial
        return candidate

    def _next(self) -> tuple[Trial, Mapping[str, Scalar]]:
        """What the sampler wants to try next."""
        if self._suggest is None:
            trial = self._study.ask(self._distributions)
            return trial, trial.params
        trial = self._study.ask()
        return trial, self._suggest(trial)

    def _closest(self, config: Mapping[str, Scalar]) -> Candidate:
        """Of those left, one with the fewest choices that differ; any of them, for a sampler that does not listen."""
        places = np.flatnonzero(self._left)
        if self._listens:
            differing = (self._values[places] != self._numbers(config)).sum(axis=1)
            places = places[differing == differing.min()]
        return self._candidates[int(places[self._random.randrange(len(places))])]

    def _numbers(self, config: Mapping[str, Scalar]) -> list[int]:
        """The position of each value among its parameter's choices."""
        return [places[_key(config.get(name, ABSENT))] for name, places in sorted(self._choices.items())]


def _key(value: Mapping[str, Scalar] | Scalar) -> str:
    return json.dumps(value, sort_keys=True)
