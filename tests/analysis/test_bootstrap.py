"""Resampled correlations, against scipy draw by draw."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from nasproxy.analysis.bootstrap import bootstrap_rhos


def rho(x, y):
    """Scipy's, NaN where a side is constant."""
    return np.nan if np.ptp(x) == 0 or np.ptp(y) == 0 else stats.spearmanr(x, y).statistic


@given(x=arrays(np.float64, st.integers(3, 15), elements=st.integers(0, 4).map(float)), seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_every_draw_is_scipys_on_the_candidates_drawn_for_all_proxies_alike(x, seed):
    rng = np.random.default_rng(seed)
    y, z = (rng.integers(0, 4, len(x)).astype(float) for _ in range(2))
    found = bootstrap_rhos([x[:, None], y[:, None]], z[:, None], resamples=6, seed=seed)
    index = np.random.default_rng(seed).integers(len(x), size=(6, len(x)))
    expected = [[rho(side[row], z[row]) for row in index] for side in (x, y)]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_equal_repeats_leave_only_the_candidates_to_chance():
    rng = np.random.default_rng(2)
    proxy, whole = rng.normal(size=(20, 1)), rng.normal(size=(20, 1))
    once = bootstrap_rhos([proxy], whole, resamples=400, seed=0)[0]
    thrice = bootstrap_rhos([proxy.repeat(3, 1)], whole, resamples=400, seed=0)[0]
    np.testing.assert_allclose(once, thrice, atol=1e-12)


def test_many_chunks_are_one_sequence_of_draws(monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 1)), rng.normal(size=(30, 1))
    whole = bootstrap_rhos([x], y, resamples=100, seed=5)
    monkeypatch.setattr("nasproxy.analysis.bootstrap._CHUNK", 90)
    np.testing.assert_array_equal(bootstrap_rhos([x], y, resamples=100, seed=5), whole)


def test_a_constant_side_has_no_correlation_in_any_draw():
    assert np.isnan(bootstrap_rhos([np.ones((5, 1))], np.arange(5.0)[:, None], resamples=20)).all()
    assert np.isnan(bootstrap_rhos([np.ones((5, 2))], np.arange(5.0)[:, None], resamples=20)).all()


def test_candidates_are_drawn_each_with_the_mean_of_its_repeats():
    rng = np.random.default_rng(5)
    proxy, whole = rng.normal(size=(12, 4)), rng.normal(size=(12, 2))
    plain = bootstrap_rhos([proxy.mean(1)[:, None]], whole.mean(1)[:, None], resamples=50, seed=7)
    np.testing.assert_allclose(bootstrap_rhos([proxy], whole, resamples=50, seed=7), plain, atol=1e-12)
