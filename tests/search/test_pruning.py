import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasproxy.search.candidate import Candidate
from nasproxy.search.halving import PRUNERS, REDUCTION, pruning_levels
from nasproxy.search.pruning import Pruning
from nasproxy.training.train import Score

EPOCHS = 100


def candidates(count: int) -> list[Candidate]:
    return [Candidate.of({"number": number}) for number in range(count)]


def asha(arrivals: list[float]) -> list[bool]:
    """Who goes on from a level, said anew at each arrival: the best quarter so far, or the best while there is none."""
    verdicts = []
    for number, value in enumerate(arrivals, 1):
        better = sum(other > value for other in arrivals[:number])
        verdicts.append(better < max(1, number // REDUCTION))
    return verdicts


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
