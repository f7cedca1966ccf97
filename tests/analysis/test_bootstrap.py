"""Resampled correlations, against scipy draw by draw."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from nasproxy.analysis.bootstrap import bootstrap_rhos, mean_of_repeats


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


def test_repeats_are_drawn_within_each_candidate_drawn():
    rng = np.random.default_rng(4)
    proxy, whole = rng.normal(size=(9, 3)), rng.integers(0, 4, size=(9, 2)).astype(float)
    found = bootstrap_rhos([proxy], whole, resamples=5, seed=11, over_repeats=True)[0]
    draws = np.random.default_rng(11)
    index = draws.integers(9, size=(5, 9))
    whole_repeats, proxy_repeats = draws.integers(2, size=(5, 9, 2)), draws.integers(3, size=(5, 9, 3))
    for row in range(5):
        pairs = []
        for place in range(9):
            candidate = index[row, place]
            one = np.mean([proxy[candidate, repeat] for repeat in sorted(proxy_repeats[row, place])])
            other = np.mean([whole[candidate, repeat] for repeat in whole_repeats[row, place]])
            pairs.append((one, other))
        assert found[row] == pytest.approx(stats.spearmanr(*zip(*pairs, strict=True)).statistic)


def test_equal_repeats_leave_only_the_candidates_to_chance():
    rng = np.random.default_rng(2)
    proxy, whole = rng.normal(size=(20, 1)), rng.normal(size=(20, 1))
    once = bootstrap_rhos([proxy], whole, resamples=400, seed=0)[0]
    thrice = bootstrap_rhos([proxy.repeat(3, 1)], whole, resamples=400, seed=0, over_repeats=True)[0]
    np.testing.assert_allclose(once, thrice, atol=1e-12)


def test_noisy_repeats_widen_the_draws():
    rng = np.random.default_rng(3)
    truth = np.arange(40.0)[:, None]
    noisy = truth + rng.normal(scale=30, size=(40, 5))
    means = mean_of_repeats(noisy)[:, None]
    with_repeats = bootstrap_rhos([noisy], truth, resamples=1000, seed=0, over_repeats=True)[0].std()
    without = bootstrap_rhos([means], truth, resamples=1000, seed=0)[0].std()
    assert with_repeats > 1.05 * without


def test_many_chunks_are_one_sequence_of_draws(monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 1)), rng.normal(size=(30, 1))
    whole = bootstrap_rhos([x], y, resamples=100, seed=5)
    monkeypatch.setattr("nasproxy.analysis.bootstrap._CHUNK", 90)
    np.testing.assert_array_equal(bootstrap_rhos([x], y, resamples=100, seed=5), whole)


def test_a_constant_side_has_no_correlation_in_any_draw():
    assert np.isnan(bootstrap_rhos([np.ones((5, 1))], np.arange(5.0)[:, None], resamples=20)).all()
    assert np.isnan(bootstrap_rhos([np.ones((5, 2))], np.arange(5.0)[:, None], resamples=20)).all()


def test_unless_asked_for_only_candidates_are_drawn_each_with_the_mean_of_its_repeats():
    rng = np.random.default_rng(5)
    proxy, whole = rng.normal(size=(12, 4)), rng.normal(size=(12, 2))
    plain = bootstrap_rhos([proxy.mean(1)[:, None]], whole.mean(1)[:, None], resamples=50, seed=7)
    np.testing.assert_allclose(bootstrap_rhos([proxy], whole, resamples=50, seed=7), plain, atol=1e-12)


def test_drawn_repeats_lower_rho_which_is_why_the_interval_is_of_candidates_alone():
    rng = np.random.default_rng(6)
    truth = rng.normal(size=(60, 1))
    proxy, whole = (truth + 0.5 * rng.normal(size=(60, 3)) for _ in range(2))
    rho = stats.spearmanr(proxy.mean(1), whole.mean(1)).statistic
    candidates, repeats = (
        bootstrap_rhos([proxy], whole, resamples=2000, seed=0, over_repeats=over)[0].mean() for over in (False, True)
    )
    assert candidates == pytest.approx(rho, abs=0.02)
    assert repeats < rho - 0.04
