"""Early stopping takes the steps of a training on a proxy, counted; what it shows is the training part, in turns."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_dataset
from torch import nn

from nasproxy.proxies.early_stopping import EarlyStopping, EarlyStoppingSubset
from nasproxy.proxies.make import random_proxy
from nasproxy.proxies.whole import WholeData
from nasproxy.training.recipe import TrainingRecipe
from nasproxy.training.train import Images, train

WHOLE = TrainingRecipe(epochs=3, batch_size=4)
DATASET = tiny_dataset((40, 30, 30), size=(4, 4))


def steps(images: Images, recipe: TrainingRecipe, validation: Images | None = None, **more) -> list[list[int]]:
    """The positions of each batch, of each optimiser step."""
    model, shown = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), []
    options = {"seed": 0, "precision": "float32", "on_batch": lambda batch, *_: shown.append(batch.tolist()), **more}
    train(model, images, recipe, validation, **options)
    return shown


def prepared(split) -> Images:
    return Images(DATASET.normalisation.apply(split.images), split.labels)


@pytest.mark.parametrize("method", [EarlyStopping, EarlyStoppingSubset])
@pytest.mark.parametrize("ipc", [1, 2, 10])
def test_as_many_steps_of_as_many_images_as_a_training_on_a_proxy(method, ipc):
    proxy = random_proxy(DATASET, ipc, seed=0)
    on_proxy = steps(Images(proxy.images, proxy.labels), TrainingRecipe(epochs=12))
    stopping = method(ipc=ipc, epochs=12)
    early = steps(prepared(stopping.images(DATASET, seed=0)), stopping.recipe(DATASET, WHOLE))
    assert [len(batch) for batch in early] == [len(batch) for batch in on_proxy] == [3 * ipc] * 12
    recipe = stopping.recipe(DATASET, WHOLE)
    assert [recipe.learning_rate_at(epoch) for epoch in range(12)] == [0.01] * 6 + [0.001] * 6


def test_no_image_is_shown_again_before_all_have_been():
    stopping = EarlyStopping(ipc=3, epochs=25)
    early = steps(prepared(stopping.images(DATASET, seed=0)), stopping.recipe(DATASET, WHOLE))
    shown = [position for batch in early for position in batch]
    assert len(shown) == 25 * 9
    assert sorted(shown[:100]) == sorted(shown[100:200]) == list(range(100))
    assert shown[:100] != shown[100:200]


@settings(deadline=None, max_examples=40)
@given(count=st.integers(2, 40), images=st.integers(1, 60), size=st.integers(1, 9), epochs=st.integers(1, 6))
def test_batches_are_those_of_a_set_of_that_many_images_and_turns_are_fair(count, images, size, epochs):
    generator = torch.Generator().manual_seed(0)
    data = Images(torch.randn(count, 1, 4, 4, generator=generator), torch.zeros(count, dtype=torch.int64))
    other = Images(torch.randn(images, 1, 4, 4, generator=generator), torch.zeros(images, dtype=torch.int64))
    early = steps(data, TrainingRecipe(epochs=epochs, batch_size=size, images=images))
    plain = steps(other, TrainingRecipe(epochs=epochs, batch_size=size))
    if images == count:
        assert early == plain
    assert [len(batch) for batch in early] == [len(batch) for batch in plain]
    seen = Counter(position for batch in early for position in batch)
    assert max(seen.values()) - min(seen[position] for position in range(count)) <= 1


def test_a_shorter_one_has_the_scores_of_a_longer_one_at_its_epochs():
    images, validation = prepared(DATASET.train), prepared(DATASET.validation)
    recipe = TrainingRecipe(epochs=8, learning_rate=0.1, images=9)

    def scores(**more):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
        return train(model, images, recipe, validation, seed=0, precision="float32", **more)

    long = scores(evaluate_at=(2, 5))
    assert [score.epoch for score in long] == [2, 5, 8]
    assert scores(epochs=5) == [long[1]]
    assert len({score.cross_entropy for score in long}) == 3


def test_the_subset_lies_between_the_proxy_and_the_whole_in_equal_ratios():
    stopping = EarlyStoppingSubset(ipc=3, epochs=12)
    subset = stopping.images(DATASET, seed=1)
    assert len(subset) == round(math.sqrt(9 * 100)) == 30
    rows = {tuple(image.flatten().tolist()) for image in DATASET.train.images}
    assert {tuple(image.flatten().tolist()) for image in subset.images} <= rows
    assert torch.equal(subset.images, stopping.images(DATASET, seed=1).images)
    assert not torch.equal(subset.images, stopping.images(DATASET, seed=2).images)


def test_what_has_to_be_stored_are_the_images_that_are_looked_at():
    seen = {
        (method, epochs): method(ipc=3, epochs=epochs).images_seen(DATASET, WHOLE, seed=0)
        for method in (EarlyStopping, EarlyStoppingSubset, WholeData)
        for epochs in (2, 5, 50)
    }
    assert [seen[EarlyStopping, epochs] for epochs in (2, 5, 50)] == [18, 45, 100]
    assert [seen[EarlyStoppingSubset, epochs] for epochs in (2, 5, 50)] == [18, 30, 30]
    assert [seen[WholeData, epochs] for epochs in (2, 5, 50)] == [100] * 3


def test_the_whole_data_are_trained_on_as_by_finalists():
    whole = WholeData(ipc=3, epochs=12)
    assert whole.images(DATASET, seed=0) is DATASET.train
    assert whole.recipe(DATASET, WHOLE) == WHOLE
