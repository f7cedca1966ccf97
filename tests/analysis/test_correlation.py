"""Rank agreement, against scipy and closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from nasproxy.analysis.correlation import spearman

TIED = arrays(np.float64, st.integers(3, 30), elements=st.integers(0, 6).map(float))


@given(x=TIED, seed=st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_rho_and_tau_are_scipys_on_data_with_ties(x, seed):
    y = np.random.default_rng(seed).integers(0, 6, len(x)).astype(float)
    agreement = spearman(x, y, resamples=20)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert agreement.rho is None
        assert "equal" in agreement.reason
        return
    assert agreement.rho == pytest.approx(stats.spearmanr(x, y).statistic)
    assert agreement.kendall == pytest.approx(stats.kendalltau(x, y).statistic)
    assert agreement.n == len(x)


def test_interval_is_that_of_scipys_bootstrap():
    rng = np.random.default_rng(3)
    x = rng.integers(0, 8, 25).astype(float)
    y = x + rng.integers(0, 8, 25)
    reference = stats.bootstrap(
        (x, y), lambda a, b: stats.spearmanr(a, b).statistic, paired=True, vectorized=False, method="percentile",
        n_resamples=3000, rng=np.random.default_rng(1), confidence_level=0.9,
    ).confidence_interval  # fmt: skip
    agreement = spearman(x, y, level=0.9)
    assert agreement.interval == pytest.approx((reference.low, reference.high), abs=0.03)
    assert agreement.level == 0.9


def test_each_draws_rho_is_scipys():
    # With one draw both ends of the interval are that draw's rho.
    x, y = np.array([1.0, 1, 2, 3, 3, 4, 5]), np.array([2.0, 1, 1, 3, 5, 4, 4])
    for seed in range(20):
        index = np.random.default_rng(seed).integers(7, size=(1, 7))[0]
        expected = stats.spearmanr(x[index], y[index]).statistic
        assert spearman(x, y, resamples=1, seed=seed).interval == pytest.approx((expected, expected))


@given(x=arrays(np.float64, 12, elements=st.integers(0, 100).map(float), unique=True))
@settings(max_examples=25, deadline=None)
def test_equal_and_reversed_orders(x):
    same, reverse = spearman(x, np.exp(x / 50), resamples=50), spearman(x, -x, resamples=50)
    assert (same.rho, same.kendall) == pytest.approx((1, 1))
    assert (reverse.rho, reverse.kendall) == pytest.approx((-1, -1))
    assert same.interval == pytest.approx((1, 1))


def test_many_pairs_take_many_chunks_and_the_same_seed_gives_the_same_interval(monkeypatch):
    rng = np.random.default_rng(0)
    x = rng.normal(size=40)
    y = x + rng.normal(size=40)
    monkeypatch.setattr("nasproxy.analysis.bootstrap._CHUNK", 400)
    first = spearman(x, y, resamples=95)
    assert first == spearman(x, y, resamples=95)
    assert first.interval != spearman(x, y, resamples=95, seed=1).interval
    assert first.interval[0] < first.rho < first.interval[1]


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        ([], [], "at least 3 points, there are 0"),
        ([1.0], [2.0], "at least 3 points, there is 1"),
        ([1.0, 2.0], [1.0, 2.0], "at least 3 points"),
        ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], "all 3 first values are equal"),
        ([1.0, 2.0, 3.0], [0.5, 0.5, 0.5], "all 3 second values are equal"),
        ([1.0, 1.0, 1.0], [0.5, 0.5, 0.5], "both sides"),
        ([1.0, 2.0, float("nan"), 4.0], [1.0, float("nan"), 2.0, 3.0], "there are 2"),
    ],
)
def test_no_rho_comes_with_its_reason(x, y, reason):
    agreement = spearman(x, y)
    assert (agreement.rho, agreement.interval, agreement.kendall) == (None, None, None)
    assert reason in agreement.reason


def test_draws_that_are_all_constant_leave_no_interval():
    # The one draw of this seed takes the first pair only.
    seed = next(s for s in range(100_000) if not np.random.default_rng(s).integers(5, size=(1, 5)).any())
    agreement = spearman([1, 2, 3, 4, 5], [1, 3, 2, 4, 5], resamples=1, seed=seed)
    assert agreement.rho == pytest.approx(0.9)
    assert agreement.interval is None
    assert "constant" in agreement.reason


def test_four_pairs_have_a_rho_but_no_interval():
    agreement = spearman([1, 2, 3, 4], [10, 20, 30, 40])
    assert agreement.rho == 1.0
    assert agreement.interval is None
    assert "5 pairs" in agreement.reason


@pytest.mark.parametrize("options", [{"resamples": 0}, {"level": 0.0}, {"level": 1.0}])
def test_options_outside_their_range(options):
    with pytest.raises(ValueError, match="expected resamples"):
        spearman([1, 2, 3], [1, 2, 3], **options)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="one length"):
        spearman([1, 2, 3], [1, 2])


@given(x=arrays(np.float64, st.integers(3, 12), elements=st.integers(0, 4).map(float)), seed=st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_tau_b_by_counting_pairs(x, seed):
    y = np.random.default_rng(seed).integers(0, 4, len(x)).astype(float)
    pairs = [(np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i in range(len(x)) for j in range(i)]
    untied = [sum(1 for pair in pairs if pair[side]) for side in (0, 1)]
    if all(untied):
        expected = sum(a * b for a, b in pairs) / (untied[0] * untied[1]) ** 0.5
        assert spearman(x, y, resamples=2).kendall == pytest.approx(expected)


def test_repeats_are_averaged_and_their_order_is_immaterial():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(12, 3)), rng.normal(size=(12, 2))
    found = spearman(x, y, resamples=50)
    assert found.rho == pytest.approx(stats.spearmanr(x.mean(1), y.mean(1)).statistic)
    assert found.rho == spearman(x[:, ::-1], y, resamples=50).rho
    assert spearman([[0.1, 0.2, 0.7], [0.7, 0.1, 0.2], [0.2, 0.7, 0.1]], [1, 2, 3]).rho is None


def test_a_missing_repeat_leaves_its_pair_out():
    x = [[1.0, 2.0], [2.0, float("nan")], [3.0, 3.0], [4.0, 5.0]]
    assert spearman(x, [1, 2, 3, 4]).n == 3
