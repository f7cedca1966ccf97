"""Differences between proxies, against a loop over the same draws and closed forms."""

import numpy as np
import pytest
from scipy import stats

from nasproxy.analysis.difference import rho_differences
from nasproxy.analysis.holm import holm


def test_the_interval_is_that_of_a_loop_over_the_same_draws():
    rng = np.random.default_rng(0)
    whole = rng.normal(size=25)
    one, other = whole + rng.normal(size=25), np.round(whole + rng.normal(size=25))
    (found,) = rho_differences({"one": one, "other": other}, whole, resamples=60, seed=3, level=0.9)
    draws = []
    for index in np.random.default_rng(3).integers(25, size=(60, 25)):
        a, b = (stats.spearmanr(side[index], whole[index]).statistic for side in (one, other))
        draws.append(a - b)
    assert found.interval == pytest.approx(tuple(np.quantile(draws, [0.05, 0.95])))
    expected = stats.spearmanr(one, whole).statistic - stats.spearmanr(other, whole).statistic
    assert found.difference == pytest.approx(expected)
    assert (found.first, found.second, found.n) == ("one", "other", 25)


def test_equal_rankings_differ_by_nothing_and_are_not_told_apart():
    rng = np.random.default_rng(1)
    whole = rng.normal(size=30)
    proxy = whole + rng.normal(size=30)
    (found,) = rho_differences({"plain": proxy, "cubed": proxy**3}, whole, resamples=200)
    assert (found.difference, found.interval) == (0.0, (0.0, 0.0))
    assert not found.told_apart


def test_the_truth_and_its_reverse_are_told_apart_by_two():
    whole = np.arange(10.0)
    (found,) = rho_differences({"good": whole, "bad": -whole}, whole, resamples=100)
    assert found.difference == pytest.approx(2)
    assert found.interval == pytest.approx((2, 2))
    assert found.told_apart


def test_pairing_is_narrower_than_two_intervals_apart():
    rng = np.random.default_rng(2)
    whole = rng.normal(size=60)
    shared = whole + rng.normal(size=60)
    one, other = shared + 0.1 * rng.normal(size=60), shared + 0.1 * rng.normal(size=60)
    (paired,) = rho_differences({"one": one, "other": other}, whole, resamples=500)
    apart = rng.permutation(60)
    (mixed,) = rho_differences({"one": one, "other": other[apart]}, whole, resamples=500)
    assert np.ptp(paired.interval) < 0.5 * np.ptp(mixed.interval)


def test_every_two_are_compared_on_the_candidates_both_have():
    rng = np.random.default_rng(5)
    whole = rng.normal(size=12)
    a, b, c = (rng.normal(size=(12, 2)) for _ in range(3))
    b[:3] = np.nan
    found = rho_differences({"a": a, "b": b, "c": c}, whole, resamples=20)
    assert [(row.first, row.second, row.n) for row in found] == [("a", "b", 9), ("a", "c", 12), ("b", "c", 9)]


@pytest.mark.parametrize(
    ("scores", "reason"), [(np.ones(6), "flat: all 6 first values are equal"), ([1.0, 2.0, *[np.nan] * 4], "3 points")]
)
def test_what_has_no_correlation_has_no_difference(scores, reason):
    (found,) = rho_differences({"flat": scores, "good": np.arange(6.0)}, np.arange(6.0))
    assert (found.difference, found.interval, found.told_apart) == (None, None, False)
    assert reason in found.reason


def test_four_candidates_have_no_interval():
    (found,) = rho_differences({"a": [1.0, 2, 3, 4], "b": [2.0, 1, 3, 4]}, [1.0, 2, 3, 4])
    assert found.difference == pytest.approx(0.2)
    assert found.interval is None
    assert "5 candidates" in found.reason


def test_p_values_are_counted_draws_and_corrected_for_all_pairs():
    rng = np.random.default_rng(8)
    whole = rng.normal(size=20)
    proxies = {"good": whole + rng.normal(size=20), "poor": rng.normal(size=20), "bad": -whole + rng.normal(size=20)}
    found = rho_differences(proxies, whole, resamples=80, seed=2)
    index = np.random.default_rng(2).integers(20, size=(80, 20))
    for one in found:
        gaps = [
            stats.spearmanr(proxies[one.first][row], whole[row]).statistic
            - stats.spearmanr(proxies[one.second][row], whole[row]).statistic
            for row in index
        ]
        above, below = sum(gap >= -1e-12 for gap in gaps), sum(gap <= 1e-12 for gap in gaps)
        assert one.p_value == pytest.approx(min(1, 2 * (min(above, below) + 1) / 81))
    assert [one.adjusted for one in found] == pytest.approx(list(holm([one.p_value for one in found])))


def test_of_many_pairs_the_clearest_is_told_apart_all_the_same():
    whole = np.arange(6.0)
    proxies = {f"good {number}": whole for number in range(22)}
    found = rho_differences({**proxies, "bad": -whole}, whole)
    assert len(found) == 253
    assert [one.told_apart for one in found] == ["bad" in (one.first, one.second) for one in found]


def test_what_would_be_a_difference_by_itself_need_be_none_among_many():
    by_itself = 0
    for seed in range(3):
        rng = np.random.default_rng(seed)
        whole = rng.normal(size=30)
        noise = {f"noise {number}": rng.normal(size=30) for number in range(12)}
        found = rho_differences(noise, whole, resamples=4000)
        by_itself += sum(not one.interval[0] <= 0 <= one.interval[1] for one in found)
        assert len(found) == 66
        assert not any(one.told_apart for one in found)
    assert by_itself >= 3
