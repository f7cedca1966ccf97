"""Top k, against all ways of breaking ties, and scipy."""

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nasproxy.analysis.top_k import precision_at_k, top, top_agreement, winner

NAN = float("nan")
FEW = st.lists(st.integers(0, 3).map(float), min_size=2, max_size=6)


def orders(values):
    """All orders, best first, that break the ties of ``values``."""
    return [order for order in permutations(range(len(values))) if sorted_by(values, order)]


def sorted_by(values, order):
    return all(values[a] >= values[b] for a, b in pairwise(order))


def test_the_certain_and_the_tied():
    found = top([5.0, 3.0, 3.0, 4.0, 3.0, NAN, 1.0], 3)
    assert list(found.certain) == [0, 3]
    assert sorted(found.tied) == [1, 2, 4]
    draws = {tuple(sorted(draw)) for draw in found.draws(60, 0)}
    assert draws == {(0, 1, 3), (0, 2, 3), (0, 3, 4)}


@pytest.mark.parametrize(
    ("scores", "k", "certain"),
    [([1.0, 2.0, 2.0], 2, [1, 2]), ([1.0, 2.0, 3.0], 5, [2, 1, 0]), ([NAN, NAN], 1, []), ([], 2, [])],
)
def test_without_ties_at_the_cut_there_is_one_draw(scores, k, certain):
    found = top(scores, k)
    assert [list(draw) for draw in found.draws(7, 0)] == [certain]
    assert found.k == len(certain)


def test_k_of_nothing():
    with pytest.raises(ValueError, match="k >= 1"):
        top([1.0, 2.0], 0)


def test_each_of_the_tied_is_drawn_as_often():
    draws = top([1.0, 0.0, 0.0, 0.0], 2, seed=1).draws(3000, 2)
    counts = np.bincount(np.concatenate(draws), minlength=4)
    assert counts[0] == 3000
    assert counts[1:] == pytest.approx(1000, abs=120)


@given(proxy=FEW, seed=st.integers(0, 1000), k=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_precision_is_the_mean_over_all_ways_to_break_ties(proxy, seed, k):
    whole = np.random.default_rng(seed).integers(0, 3, len(proxy)).astype(float)
    found = precision_at_k(proxy, whole, k)
    if len(proxy) <= k:
        assert found is None
        return
    hits = [len({*one[:k]} & {*other[:k]}) / k for one in orders(proxy) for other in orders(list(whole))]
    assert found == pytest.approx(np.mean(hits))


def test_precision_of_a_constant_is_chance():
    assert precision_at_k(np.zeros(20), np.arange(20), 5) == pytest.approx(5 / 20)


def test_agreement_is_scipys_on_the_top():
    rng = np.random.default_rng(0)
    proxy, whole = rng.normal(size=30), rng.normal(size=30)
    found = top_agreement(proxy, whole, 8, resamples=200)
    best = np.argsort(-proxy)[:8]
    assert found.rho == pytest.approx(stats.spearmanr(proxy[best], whole[best]).statistic)
    assert found.kendall == pytest.approx(stats.kendalltau(proxy[best], whole[best]).statistic)
    assert found.n == 8
    assert found.interval[0] < found.rho < found.interval[1]


def test_ties_at_the_cut_are_averaged_over():
    proxy = np.array([9.0, 8, 7, 6, 5, 5, 5, 1])
    whole = np.array([0.4, 0.9, 0.5, 0.7, 0.1, 0.6, 0.8, 0.0])
    every = [[*range(4), last] for last in (4, 5, 6)]
    rhos = [stats.spearmanr(proxy[index], whole[index]).statistic for index in every]
    found = top_agreement(proxy, whole, 5, draws=300, resamples=300)
    assert found.rho == pytest.approx(np.mean(rhos), abs=0.08)
    assert found == top_agreement(proxy, whole, 5, draws=300, resamples=300)
    assert found.n == 5


def test_another_order_chooses_the_top():
    proxy, whole = [1.0, 1.0, 1.0, 2.0, 2.0], [1.0, 2.0, 3.0, 4.0, 5.0]
    found = top_agreement(proxy, whole, 4, order=[3.0, 2.0, 1.0, 5.0, 4.0], resamples=10)
    index = [0, 1, 3, 4]
    assert found.rho == pytest.approx(stats.spearmanr(np.take(proxy, index), np.take(whole, index)).statistic)


def test_one_of_the_top_without_a_whole_accuracy_is_not_replaced():
    found = top_agreement([6.0, 5, 4, 3, 2, 1], [0.1, NAN, 0.3, 0.2, 0.6, 0.5], 4, resamples=10)
    assert found.n == 3
    assert found.rho == pytest.approx(stats.spearmanr([6, 4, 3], [0.1, 0.3, 0.2]).statistic)


def test_a_constant_proxy_has_no_correlation_but_a_reason():
    found = top_agreement(np.zeros(12), np.arange(12.0), 5)
    assert (found.rho, found.interval, found.kendall) == (None, None, None)
    assert "equal" in found.reason


def test_few_have_no_interval():
    found = top_agreement([3.0, 2, 1, 0], [1.0, 2, 3, 4], 4)
    assert found.rho == -1
    assert found.interval is None
    assert "5 pairs" in found.reason


def test_the_winner_and_its_regret():
    found = winner([1.0, 3.0, 2.0], [0.9, 0.7, NAN], [0.8, 0.75, NAN])
    assert (found.test, found.positions) == (0.75, (1,))
    assert (found.regret, found.test_regret) == pytest.approx((0.2, 0.05))


def test_winners_that_are_tied_are_averaged():
    found = winner([3.0, 3.0, 3.0, 1.0], [0.5, 0.7, NAN, 0.9], [0.4, 0.6, NAN, 0.9])
    assert (found.test, found.regret) == pytest.approx((0.5, 0.3))
    assert found.positions == (0, 1)


def test_a_winner_nobody_trained_has_no_regret():
    assert winner([3.0, 1.0], [NAN, 0.9], [NAN, 0.9]) is None
    assert winner([NAN, NAN], [0.8, 0.9], [0.8, 0.9]) is None
