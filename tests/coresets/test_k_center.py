"""Greedy k-center against plain loops, and against the best centres there are."""

from __future__ import annotations

import math
from itertools import combinations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nasproxy.coresets.k_center import greedy_centres


def radius(rows: list[list[float]], centres: list[int]) -> float:
    """The largest distance of a row to its nearest centre."""
    return max(min(math.dist(row, rows[c]) for c in centres) for row in rows)


def draw(count: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(rows: list[list[float]], count: int) -> list[int]:
    mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    chosen = [min(range(len(rows)), key=lambda i: math.dist(rows[i], mean))]
    while len(chosen) < count:
        rest = [i for i in range(len(rows)) if i not in chosen]
        chosen.append(max(rest, key=lambda i: min(math.dist(rows[i], rows[c]) for c in chosen)))
    return chosen


@settings(deadline=None, max_examples=60)
@given(st.integers(3, 9), st.integers(1, 5), st.integers(0, 10_000), st.data())  # two are as near to their mean
def test_equals_measuring_all_distances_at_each_step(count, width, seed, data):
    features = draw(count, width, seed)
    wanted = data.draw(st.integers(1, count))
    assert greedy_centres(features, wanted).tolist() == by_hand(features.tolist(), wanted)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 8), st.integers(0, 10_000), st.data())
def test_covers_at_most_twice_as_wide_as_the_best_centres(count, seed, data):
    features = draw(count, 2, seed)
    wanted = data.draw(st.integers(1, count))
    rows = features.tolist()
    best = min(radius(rows, list(centres)) for centres in combinations(range(count), wanted))
    assert radius(rows, greedy_centres(features, wanted).tolist()) <= 2 * best + 1e-9


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.integers(0, 1), min_size=2, max_size=2), min_size=1, max_size=8))
def test_copies_are_chosen_last_and_no_image_twice(rows):
    chosen = greedy_centres(torch.tensor(rows, dtype=torch.float64), len(rows)).tolist()
    assert sorted(chosen) == list(range(len(rows)))
    kinds = {tuple(row) for row in rows}
    assert {tuple(rows[i]) for i in chosen[: len(kinds)]} == kinds


def test_the_first_is_the_one_closest_to_the_mean_and_of_equals_the_first_is_taken():
    features = torch.tensor([[-4.0], [4.0], [1.0], [-1.0]])
    assert greedy_centres(features, 3).tolist() == [2, 0, 1]
