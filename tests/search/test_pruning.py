from __future__ import annotations

import itertools
import math
import random

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.pruners import HyperbandPruner, SuccessiveHalvingPruner

from nasproxy.search.halving import PRUNERS, REDUCTION, pruning_levels
from nasproxy.search.pruning import Pruning
from nasproxy.spaces.candidate import Candidate
from nasproxy.training.train import Score

EPOCHS = 100
ACCURACIES = (0.0, 0.25, 0.5, 0.75, 1.0, math.nan)


def candidates(count: int) -> list[Candidate]:
    return [Candidate.of({"number": number}) for number in range(count)]


def asha(arrivals: list[float]) -> list[bool]:
    """Who goes on from a level, said anew at each arrival: the best quarter so far, or the best while there is none."""
    verdicts = []
    for number, value in enumerate(arrivals, 1):
        better = sum(other > value for other in arrivals[:number])
        verdicts.append(better < max(1, number // REDUCTION))
    return verdicts


class ByOptuna:
    """The same decisions by Optuna's pruners, which keep what they know in a study."""

    def __init__(self, scheduler: str, found: list[Candidate], epochs: int, seed: int) -> None:
        first = (*pruning_levels(epochs), epochs)[0]
        pruner = {
            "asha": SuccessiveHalvingPruner(first, REDUCTION),
            "hyperband": HyperbandPruner(first, epochs, REDUCTION),
        }[scheduler]
        study = optuna.create_study(direction="maximize", pruner=pruner, study_name=f"nasproxy-{seed}")
        self.trials = {candidate.id: study.ask() for candidate in found}
        self.reported = dict.fromkeys(self.trials, 0)
        self.stopped: set[str] = set()

    def goes_on(self, candidate: Candidate, score: Score) -> bool:
        if score.epoch > self.reported[candidate.id]:
            self.reported[candidate.id] = score.epoch
            trial = self.trials[candidate.id]
            trial.report(score.accuracy, score.epoch)
            if trial.should_prune():
                self.stopped.add(candidate.id)
        return candidate.id not in self.stopped


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(PRUNERS),
    st.sampled_from([4, 16, 32, 100]) | st.integers(1, 400),
    st.integers(0, 3),
    # Some report nothing (they failed), or no more; others again, or after they were stopped, as in a resumed run.
    st.lists(st.tuples(st.integers(0, 15), st.integers(0, 20), st.sampled_from(ACCURACIES)), min_size=20, max_size=60),
)
def test_every_decision_is_that_of_optuna(scheduler, epochs, seed, reports):
    levels, found = pruning_levels(epochs), candidates(16)
    ours, optunas = (make(scheduler, found, epochs, seed) for make in (Pruning, ByOptuna))
    # At a level or beside it, or just before the end, where nothing is judged any more.
    near = sorted({epoch + by for epoch in (*levels, epochs) for by in (-1, 0, 1)} & {*range(1, epochs)})
    for number, place, accuracy in reports if near else ():
        score = Score(near[place % len(near)], accuracy, 1.0)
        assert ours.goes_on(found[number], score) == optunas.goes_on(found[number], score)


@pytest.mark.parametrize("scheduler", PRUNERS)
def test_so_is_every_decision_of_a_search_in_which_several_train_at_once(scheduler):
    draw, levels, found = random.Random(0), pruning_levels(EPOCHS), candidates(300)
    ours, optunas = (make(scheduler, found, EPOCHS, 0) for make in (Pruning, ByOptuna))
    ahead = {candidate.id: [10, 50, *levels] for candidate in found}
    training, waiting, stopped_at = found[:8], iter(found[8:]), set()
    while training:
        candidate = draw.choice(training)
        epochs = ahead[candidate.id]
        score = Score(min(epochs), round(draw.random(), 2), 1.0)
        epochs.remove(score.epoch)
        goes_on = ours.goes_on(candidate, score)
        assert goes_on == optunas.goes_on(candidate, score)
        if not goes_on:
            stopped_at.add(score.epoch)
        if not goes_on or not epochs:
            training.remove(candidate)
            training += itertools.islice(waiting, 1)
    assert stopped_at == {*levels}


class Counted(float):
    """A number that counts how often it is compared."""

    comparisons = 0

    def __lt__(self, other: float) -> bool:
        Counted.comparisons += 1
        return float(self) < float(other)

    def __ge__(self, other: float) -> bool:
        return not self < other

    def __neg__(self) -> Counted:
        return Counted(-float(self))


@pytest.mark.parametrize("falling", [False, True])
def test_a_decision_compares_with_few_of_those_before(falling):
    pruning = Pruning("asha", found := candidates(4096), EPOCHS, seed=0)
    before = Counted.comparisons
    for number, candidate in enumerate(found):
        pruning.goes_on(candidate, Score(pruning.levels[0], Counted(-number if falling else number), 1.0))
    assert 4096 < Counted.comparisons - before < 4096 * 4 * math.log2(4096)


@given(st.integers(1, 10_000))
def test_each_level_is_a_multiple_of_the_one_before_and_comes_before_the_end(epochs):
    levels = pruning_levels(epochs)
    assert all(later == REDUCTION * earlier for earlier, later in itertools.pairwise(levels))
    assert all(1 <= level < epochs for level in levels)
    assert not levels or levels[-1] * REDUCTION >= epochs


@settings(deadline=None)
@given(st.lists(st.integers(0, 20).map(lambda n: n / 20), min_size=1, max_size=40))
def test_asha_lets_the_best_quarter_so_far_go_on(accuracies):
    pruning = Pruning("asha", found := candidates(len(accuracies)), EPOCHS, seed=0)
    level = pruning.levels[0]
    verdicts = [pruning.goes_on(c, Score(level, a, 1.0)) for c, a in zip(found, accuracies, strict=True)]
    assert verdicts == asha(accuracies)
    # Those who come to the next level are compared with those who came there, and no others.
    survivors = [(c, a) for c, a, on in zip(found, accuracies, verdicts, strict=True) if on]
    again = [pruning.goes_on(c, Score(pruning.levels[1], a, 1.0)) for c, a in survivors]
    assert again == asha([a for _, a in survivors])


@pytest.mark.parametrize("scheduler", PRUNERS)
def test_asked_again_the_answer_is_the_same(scheduler):
    pruning = Pruning(scheduler, found := candidates(30), EPOCHS, seed=0)
    scores = [Score(pruning.levels[0], number % 7 / 7, 1.0) for number in range(30)]
    first = [pruning.goes_on(c, s) for c, s in zip(found, scores, strict=True)]
    assert [pruning.goes_on(c, s) for c, s in zip(found, scores, strict=True)] == first
    assert False in first


def test_a_score_between_the_levels_stops_nothing():
    pruning = Pruning("asha", found := candidates(20), EPOCHS, seed=0)
    between = pruning.levels[0] - 1
    assert all(pruning.goes_on(c, Score(between, n / 20, 1.0)) for n, c in enumerate(reversed(found)))


def test_hyperband_spares_some_the_first_levels_and_deals_by_the_seed():
    def stopped(seed: int, level: int) -> list[int]:
        pruning = Pruning("hyperband", found := candidates(200), EPOCHS, seed)
        # Falling accuracies: whoever is judged at this level is stopped, but for the first of its bracket.
        verdicts = [pruning.goes_on(c, Score(pruning.levels[level], 1 - n / 200, 1.0)) for n, c in enumerate(found)]
        return [n for n, on in enumerate(verdicts) if not on]

    first, last = stopped(0, 0), stopped(0, 2)
    assert 0 < len(first) < len(last)
    assert len(last) >= 200 - 4 * 3
    assert stopped(0, 0) == first
    assert stopped(1, 0) != first
