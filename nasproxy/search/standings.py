"""How candidates stand: their scores out of the study, the order these make, and what the study is told of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from optuna.trial import TrialState

from nasproxy.analysis.pareto import front_numbers
from nasproxy.search.costs import Cost
from nasproxy.search.settings import SearchSettings
from nasproxy.search.study import Study, mean_score
from nasproxy.search.task import PROXY
from nasproxy.spaces.candidate import Candidate
from nasproxy.training.train import Score

Place = tuple[float, float, str]
"""Negative accuracy, cross-entropy, id: in rising order candidates are best first, and no two are level."""

_TOGETHER = 1000  # candidates settled under one lock: less than a second's work, and Optuna waits 30 s for a lock


class Standings:
    """Reads scores from a study, orders candidates by them, and closes their trials.

    Args:
        settings: of the search, resolved.
        costs: of each candidate, by id.
        study: where results are.
    """

    def __init__(self, settings: SearchSettings, costs: Mapping[str, Cost], study: Study) -> None:
        self._objectives = settings.objectives
        self._repeats = range(settings.repeats or 1)
        self._costs = costs
        self._study = study

    def score(self, candidate: Candidate, data: str, epochs: int) -> Score | None:
        """The mean score of a candidate after ``epochs`` on ``data``; None where a repeat failed or is missing."""
        keys = [(candidate.id, data, epochs, repeat) for repeat in self._repeats]
        found = [self._study.measurements.get(key) for key in keys]
        whole = [measurement for measurement in found if measurement is not None and measurement.failure is None]
        return mean_score(whole) if len(whole) == len(keys) else None

    def measured(self, candidates: Sequence[Candidate], epochs: int) -> list[Candidate]:
        """Those whose trainings on the proxy for ``epochs`` are all done."""
        done = self._study.measurements.keys()
        return [c for c in candidates if all((c.id, PROXY, epochs, repeat) in done for repeat in self._repeats)]

    def place(self, candidate: Candidate, epochs: int) -> Place | None:
        """Where a candidate stands by its score on the proxy; None where it has none."""
        score = self.score(candidate, PROXY, epochs)
        return None if score is None else _place(candidate, score)

    def values(self, candidate: Candidate, score: Score) -> list[float]:
        """The objectives, in the order in which the settings name them; the worst there are of one that diverged."""
        cost = self._costs[candidate.id]
        sizes: dict[str, float | None] = {
            "parameters": cost.parameters,
            "multiply-adds": cost.multiply_adds,
            "latency": self._study.latency_ms(candidate.id),
        }
        if score.diverged:  # nobody wants it for its size
            sizes = {}
        values = [score.accuracy if name == "accuracy" else sizes.get(name) for name in self._objectives]
        return [math.inf if value is None else float(value) for value in values]

    def ranked(self, candidates: Sequence[Candidate], epochs: int) -> list[Candidate]:
        """Best first: Pareto front, accuracy, lower cross-entropy, id. Those that failed are closed and left out."""
        scored: list[tuple[Candidate, Score]] = []
        reasons = self._reasons()
        for candidate in candidates:
            score = self.score(candidate, PROXY, epochs)
            if score is None:
                reason = reasons.get(candidate.id, "no result")
                self._study.settle(candidate, TrialState.FAIL, epochs, None, reason)
            else:
                scored.append((candidate, score))
        signs = [-1 if name == "accuracy" else 1 for name in self._objectives]
        losses = [[sign * value for sign, value in zip(signs, self.values(*row), strict=True)] for row in scored]
        # With one objective, the order by accuracy is the order of the fronts.
        fronts = front_numbers(losses) if len(signs) > 1 else [0] * len(losses)
        keys = [(front, *_place(*row)) for front, row in zip(fronts, scored, strict=True)]
        return [scored[position][0] for position in sorted(range(len(keys)), key=keys.__getitem__)]

    def settle(
        self, candidates: Sequence[Candidate], state: TrialState, epochs: int, stopped: int | None = None
    ) -> None:
        """Closes trials, or notes that they go on, with the scores after ``epochs`` on the proxy.

        Args:
            candidates: of the trials.
            state: that they come to.
            epochs: of their training.
            stopped: after how many it was stopped; None where it was not.
        """
        for start in range(0, len(candidates), _TOGETHER):
            with self._study.together():
                for candidate in candidates[start : start + _TOGETHER]:
                    self._study.settle(candidate, state, stopped or epochs, self.score(candidate, PROXY, epochs))

    def _reasons(self) -> dict[str, str]:
        """Why candidates failed, by id: of several reasons the first that was recorded."""
        reasons: dict[str, str] = {}
        for (candidate_id, *_), measurement in self._study.measurements.items():
            if measurement.failure:
                reasons.setdefault(candidate_id, measurement.failure)
        return reasons


def _place(candidate: Candidate, score: Score) -> Place:
    return -score.accuracy, score.cross_entropy, candidate.id
