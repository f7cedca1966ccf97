"""Herding against trying every image with plain loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nasproxy.coresets.herding import herd


def distance_to_mean(rows: list[list[float]], chosen: list[int]) -> float:
    """‖mean of the chosen - mean of all‖², number by number."""
    total = 0.0
    for column in range(len(rows[0])):
        mean = sum(row[column] for row in rows) / len(rows)
        total += (sum(rows[i][column] for i in chosen) / len(chosen) - mean) ** 2
    return total


def draw(count: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(deadline=None, max_examples=60)
@given(st.integers(3, 9), st.integers(1, 5), st.integers(0, 10_000), st.data())  # two are as near to their mean
def test_equals_trying_all_images_at_each_step(count, width, seed, data):
    features = draw(count, width, seed)
    wanted = data.draw(st.integers(1, count))
    rows, chosen = features.tolist(), []
    for _ in range(wanted):
        rest = [i for i in range(count) if i not in chosen]
        chosen.append(min(rest, key=lambda i: distance_to_mean(rows, [*chosen, i])))
    assert herd(features, wanted).tolist() == chosen


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.integers(-2, 2), min_size=2, max_size=2), min_size=1, max_size=7))
def test_among_copies_each_image_is_chosen_once_and_each_choice_is_a_best_one(rows):
    chosen = herd(torch.tensor(rows, dtype=torch.float64), len(rows)).tolist()
    assert sorted(chosen) == list(range(len(rows)))
    for k, choice in enumerate(chosen):
        rest = [i for i in range(len(rows)) if i not in chosen[:k]]
        least = min(distance_to_mean(rows, [*chosen[:k], i]) for i in rest)
        assert distance_to_mean(rows, [*chosen[:k], choice]) == pytest.approx(least, abs=1e-9)


def test_of_equals_the_first_is_taken():
    assert herd(torch.tensor([[1.0], [0.0], [0.0], [-1.0]]), 2).tolist() == [1, 2]


def test_the_mean_of_the_chosen_comes_close_to_the_mean():
    features = draw(400, 8, 0)
    mean = features.mean(0)
    herded = (features[herd(features, 50)].mean(0) - mean).norm()
    drawn = (features[:50].mean(0) - mean).norm()
    assert herded < drawn / 10
