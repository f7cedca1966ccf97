"""Mixtures of proxies, against a loop, and how they fail."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from nasproxy.compare.mixture import mix, mixed_run
from nasproxy.compare.runs import ProxyRun
from nasproxy.compare.settings import CompareSettings
from nasproxy.errors import InputError
from nasproxy.search.settings import SearchSettings
from nasproxy.search.study import Measurement
from nasproxy.spaces.candidate import Candidate
from nasproxy.training.train import Score

CANDIDATES = [Candidate.of({"width": width}) for width in range(5)]


def run_of(scores, *, seconds=2.0, making=10.0, images=100):
    """Scores with NaN for a failure, their own negatives for ties."""
    measured = {
        candidate.id: [
            Measurement((), seconds, failure="no score")
            if math.isnan(value)
            else Measurement((Score(1, float(value), float(-value)),), seconds)
            for value in np.atleast_1d(row)
        ]
        for candidate, row in zip(CANDIDATES, scores, strict=True)
    }
    return ProxyRun(measured, making, images)


def test_a_mixture_is_the_mean_of_standardised_scores():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(9, 3)), rng.normal(100, 40, size=(9, 3))
    found = mix([one, other])
    expected = np.zeros((9, 3))
    for part in (one, other):
        means = [statistics.fmean(row) for row in part]
        centre, spread = statistics.fmean(means), statistics.pstdev(means)
        for row in range(9):
            for repeat in range(3):
                expected[row, repeat] += (part[row, repeat] - centre) / spread / 2
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_scale_and_shift_of_a_part_make_no_difference_and_a_flat_part_none_at_all():
    rng = np.random.default_rng(1)
    one, other = rng.normal(size=(2, 8, 1))
    np.testing.assert_allclose(mix([one, other]), mix([7 * one - 3, 1e9 * other + 5]), atol=1e-6)
    np.testing.assert_allclose(mix([one, np.full((8, 1), 4.0)]), mix([one]) / 2)


def test_who_lacks_a_score_of_a_part_has_none_and_does_not_disturb_the_others():
    one, other = np.arange(6.0)[:, None], np.array([[5.0], [np.nan], [3.0], [1.0], [2.0], [9.0]])
    found = mix([one, other])
    kept = [0, 2, 3, 4, 5]
    assert np.isnan(found[1]).all()
    np.testing.assert_allclose(found[kept], mix([one[kept], other[kept]]))
    assert np.isnan(mix([np.full((3, 1), np.nan), np.ones((3, 1))])).all()


def test_a_mixture_costs_what_its_parts_cost_together():
    runs = {"a": run_of([1, 2, 3, 4, np.nan]), "b": run_of([1, 3, 2, 4, 5], seconds=3.0, making=1.0, images=10)}
    found = mixed_run(runs, CANDIDATES)
    assert (found.making, found.images, found.reason) == (11.0, 110, None)
    rows = [found.measurements[candidate.id] for candidate in CANDIDATES]
    assert [m.seconds for (m,) in rows] == [5.0] * 5
    assert rows[4][0].failure == "no score"
    assert [m.scores[-1].cross_entropy for (m,) in rows[:4]] == [-1, -2.5, -2.5, -4]
    assert np.argsort([m.scores[-1].accuracy for (m,) in rows[:4]]).tolist() == [0, 1, 2, 3]


def test_without_a_part_there_is_no_mixture():
    found = mixed_run({"a": run_of([1, 2, 3, 4, 5]), "b": ProxyRun({}, 0.0, 0, "OSError: no camera")}, CANDIDATES)
    assert found.reason == "its part b has no scores: OSError: no camera"
    assert found.measurements == {}


@pytest.mark.parametrize(
    ("proxies", "rows"),
    [
        (("random", "parameters"), ("random", "parameters")),
        (("random+snip",), ("random", "snip", "random+snip")),
        (("snip+random", "random"), ("snip", "snip+random", "random")),
        (("random+snip", "random+naswot"), ("random", "snip", "random+snip", "naswot", "random+naswot")),
    ],
)
def test_parts_are_compared_beside_their_mixture(proxies, rows):
    assert CompareSettings(SearchSettings(), proxies).named.rows == rows


@pytest.mark.parametrize(
    ("name", "message"),
    [("random+synflo", "Did you mean synflow"), ("whole+snip", "no part"), ("snip+", "''")],
)
def test_mixtures_that_are_none(name, message):
    with pytest.raises(InputError, match=message):
        CompareSettings(SearchSettings(), (name,))
