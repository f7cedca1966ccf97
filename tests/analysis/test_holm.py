"""Holm's correction, against the closed test over all families that hold a comparison."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasproxy.analysis.holm import holm

P_VALUES = st.lists(st.sampled_from([0.0, 0.001, 0.01, 0.02, 0.05, 0.3, 1.0]) | st.floats(0, 1), max_size=6)


@given(P_VALUES)
def test_it_is_the_closed_test_of_bonferroni_on_every_family(p_values):
    """A comparison is rejected if Bonferroni rejects each family that it belongs to (Marcus et al., 1976)."""
    numbers = range(len(p_values))
    families = [family for size in numbers for family in combinations(numbers, size + 1)]
    expected = [
        max(min(1.0, len(family) * min(p_values[i] for i in family)) for family in families if number in family)
        for number in numbers
    ]
    assert holm(p_values) == pytest.approx(expected)


def test_of_comparisons_that_are_all_noise_one_in_twenty_families_has_an_error():
    rng = np.random.default_rng(0)
    errors = np.mean([holm(rng.random(15)).min() <= 0.05 for _ in range(4000)])
    assert errors == pytest.approx(1 - (1 - 0.05 / 15) ** 15, abs=0.01)


def test_none_and_one():
    assert holm([]).shape == (0,)
    assert holm([0.04]).tolist() == [0.04]
