"""Figures within each value of each choice, against subsets taken by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nasproxy.analysis.within import within_values


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_each_value_has_the_correlation_and_the_bias_of_its_candidates(seed):
    rng = np.random.default_rng(seed)
    norms = list(rng.choice(["none", "batch"], size=14))
    proxy, whole = rng.integers(0, 9, 14).astype(float), rng.integers(0, 9, 14).astype(float)
    found = within_values({"norm": norms}, proxy, whole, resamples=5)
    excess = [
        (sum(p > q for q in proxy) + sum(p == q for q in proxy) / 2)
        - (sum(w > v for v in whole) + sum(w == v for v in whole) / 2)
        for p, w in zip(proxy, whole, strict=True)
    ]
    for row in found:
        rows = [place for place, norm in enumerate(norms) if norm == row.value]
        assert row.agreement.n == len(rows)
        assert row.bias == pytest.approx(np.mean([excess[place] for place in rows]) / 13)
        if row.agreement.rho is not None:
            assert row.agreement.rho == pytest.approx(stats.spearmanr(proxy[rows], whole[rows]).statistic)
    assert sum(row.bias * row.agreement.n for row in found) == pytest.approx(0)


def test_a_family_that_is_put_last_has_the_most_negative_bias():
    whole = np.arange(10.0)
    depths = [1] * 5 + [4] * 5
    one, four = within_values({"depth": depths}, np.roll(whole, 5), whole)
    assert (one.value, one.bias, four.value, four.bias) == (1, pytest.approx(5 / 9), 4, pytest.approx(-5 / 9))
    assert (one.agreement.rho, four.agreement.rho) == pytest.approx((1, 1))


def test_a_constant_proxy_has_no_bias_but_a_reason():
    for row in within_values({"norm": ["a", "b", "a", "b"]}, np.zeros(4), np.arange(4.0)):
        assert row.bias is None
        assert "all 4 first values are equal" in row.reason
        assert row.agreement.rho is None


def test_candidates_without_a_score_are_left_out_of_every_choice():
    proxy, whole = np.array([1.0, 2, 3, np.nan, 5]), np.array([1.0, 2, np.nan, 4, 5])
    found = within_values({"norm": list("aabba"), "depth": [1, 2, 3, 4, 1]}, proxy, whole)
    assert [(row.choice, row.value, row.agreement.n) for row in found] == [
        ("norm", "a", 3),
        ("depth", 1, 2),
        ("depth", 2, 1),
    ]
