"""The stratified random draw."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_dataset

from nasproxy.datasets.per_class import draw_per_class
from nasproxy.errors import DatasetError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@settings(deadline=None)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=4), st.integers(0, 10_000))
def test_draws_as_many_different_images_of_each_class_in_order(counts, seed):
    dataset = tiny_dataset(counts, size=(2, 2))
    ipc = min(counts)
    positions = draw_per_class(dataset, ipc, generator(seed))
    assert dataset.train.labels[positions].tolist() == [c for c in range(len(counts)) for _ in range(ipc)]
    assert len(set(positions.tolist())) == len(positions)


def test_the_seed_decides():
    dataset = tiny_dataset((30, 30), size=(2, 2))
    draws = [draw_per_class(dataset, 5, generator(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_every_image_is_drawn_about_as_often():
    dataset = tiny_dataset((10, 4), size=(2, 2))
    source = generator()
    drawn = torch.cat([draw_per_class(dataset, 2, source) for _ in range(1000)])
    times = torch.bincount(drawn, minlength=14)
    expected = torch.where(dataset.train.labels == 0, 200.0, 500.0)
    # Six standard deviations of a hypergeometric count.
    share = expected / 1000
    assert ((times - expected).abs() < 6 * (1000 * share * (1 - share)).sqrt()).all()


def test_a_class_that_is_too_small_is_named():
    dataset = tiny_dataset((9, 4))
    with pytest.raises(DatasetError, match="5 images per class were asked for, but class 'class 1' has 4") as caught:
        draw_per_class(dataset, 5, generator())
    assert "4 or less" in caught.value.hint
    assert caught.value.exit_code == 2
