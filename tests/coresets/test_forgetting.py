"""Forgetting events against lists of what was right, and who is chosen by them."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_dataset

from nasproxy.coresets.forgetting import Forgetting, most_forgotten
from nasproxy.coresets.forgetting_events import ForgettingEvents
from nasproxy.coresets.whole_training import WholeTraining
from nasproxy.datasets.per_class import draw_per_class
from nasproxy.networks.convnet import ConvNet

EPOCHS = st.integers(1, 8).flatmap(lambda n: st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=1))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@settings(deadline=None)
@given(EPOCHS, st.integers(1, 8), st.integers(0, 10_000))
def test_counts_equal_reading_each_images_history(history, batch, seed):
    count = len(history[0])
    events, source = ForgettingEvents(count, torch.device("cpu")), generator(seed)
    for right in history:
        for positions in torch.randperm(count, generator=source).split(batch):
            events.see(positions, torch.tensor(right)[positions])
    for image, found in enumerate(events.counts().tolist()):
        seen = [right[image] for right in history]
        falls = sum(before and not after for before, after in pairwise(seen))
        assert found == (falls if any(seen) else math.inf)


@settings(deadline=None)
@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, math.inf]), min_size=1, max_size=8), st.integers(0, 100), st.data())
def test_the_most_forgotten_come_first(events, seed, data):
    count = data.draw(st.integers(1, len(events)))
    chosen = most_forgotten(torch.tensor(events), count, generator(seed)).tolist()
    assert len(set(chosen)) == count
    assert [events[i] for i in chosen] == sorted(events, reverse=True)[:count]


def test_among_equals_the_choice_is_that_of_random_images():
    dataset, seed = tiny_dataset((9, 7)), 3
    drawn = draw_per_class(dataset, 4, generator(seed))
    network = ConvNet(1, 2, (8, 8), width=4, depth=1)

    def chosen(events):
        return Forgetting(ipc=4).choose(dataset, WholeTraining(network, events, (), 0.0), seed)

    events = torch.zeros(16)
    assert torch.equal(chosen(events), drawn)
    (first, *_, last), forgotten = drawn[:4].tolist(), int(dataset.train.indices_by_class(2)[0][0])
    events[last] = 1
    assert chosen(events)[:4].tolist() == [last, first, *drawn[1:3].tolist()]
    events[forgotten] = 2
    assert int(chosen(events)[0]) == forgotten


def test_equals_are_drawn_by_the_seed_and_evenly():
    events = torch.tensor([0.0, 0.0, 5.0, 0.0, 0.0])
    draws = [most_forgotten(events, 3, generator(seed)) for seed in range(400)]
    assert torch.equal(draws[0], most_forgotten(events, 3, generator(0)))
    assert {int(draw[0]) for draw in draws} == {2}
    times = torch.bincount(torch.cat([draw[1:] for draw in draws]), minlength=5)
    # Six standard deviations of 400 draws of two out of four.
    assert ((times[[0, 1, 3, 4]] - 200).abs() < 60).all()
