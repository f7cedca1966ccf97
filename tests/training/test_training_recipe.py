"""The schedule and what a recipe refuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasproxy.errors import InputError
from nasproxy.training.recipe import TrainingRecipe


@pytest.mark.parametrize(
    ("epochs", "full"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (100, 50), (300, 150), (301, 151)]
)
def test_the_learning_rate_falls_to_a_tenth_at_half_time(epochs, full):
    recipe = TrainingRecipe(epochs=epochs, learning_rate=0.5)
    assert [recipe.learning_rate_at(epoch) for epoch in range(epochs)] == [0.5] * full + [0.05] * (epochs - full)


@given(st.integers(1, 1000))
def test_the_first_half_is_never_shorter_than_the_second(epochs):
    recipe = TrainingRecipe(epochs=epochs)
    rates = [recipe.learning_rate_at(epoch) for epoch in range(epochs)]
    assert rates == sorted(rates, reverse=True)
    assert rates.count(0.01) - rates.count(0.001) == epochs % 2


def test_the_papers_values_are_the_defaults():
    recipe = TrainingRecipe(epochs=300)
    assert (recipe.learning_rate, recipe.momentum, recipe.weight_decay) == (0.01, 0.9, 5e-4)
    assert (recipe.batch_size, recipe.augmentation) == (256, "none")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "1 epoch or more, got 0"),
        ({"epochs": 1, "batch_size": 0}, "1 image or more, got 0"),
        ({"epochs": 1, "learning_rate": 0.0}, "above 0, got 0.0"),
        ({"epochs": 1, "learning_rate": float("nan")}, "above 0, got nan"),
        ({"epochs": 1, "augmentation": "cropflip"}, "No augmentation is called 'cropflip'.*Did you mean crop-flip"),
        ({"epochs": 1, "augmentation": "siamese:colour"}, "No augmentation is called 'colour'.*Did you mean color"),
        ({"epochs": 1, "augmentation": "siamese:"}, "No augmentation is called ''"),
    ],
)
def test_values_that_cannot_be(settings, message):
    with pytest.raises(InputError, match=message):
        TrainingRecipe(**settings)
