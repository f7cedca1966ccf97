"""The paper's settings, and the ones that cannot be."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasproxy.condensation.recipe import MatchingRecipe
from nasproxy.errors import InputError


@pytest.mark.parametrize(
    ("ipc", "matching_steps", "inner_epochs"),
    [(1, 1, 1), (10, 10, 50), (20, 20, 25), (30, 30, 20), (40, 40, 15), (50, 50, 10)],
)
def test_the_papers_table(ipc, matching_steps, inner_epochs):
    recipe = MatchingRecipe.paper(ipc)
    assert (recipe.ipc, recipe.matching_steps, recipe.inner_epochs) == (ipc, matching_steps, inner_epochs)


def test_the_papers_other_values():
    recipe = MatchingRecipe.paper(10)
    assert recipe.iterations == 1000
    assert (recipe.image_learning_rate, recipe.image_momentum, recipe.network_learning_rate) == (0.1, 0.5, 0.01)
    assert (recipe.network_batch, recipe.real_batch, recipe.initial) == (256, 256, "noise")
    assert (recipe.width, recipe.depth) == (128, 3)


@given(st.integers(1, 9))
def test_between_one_and_ten_images_the_steps_rise(ipc):
    fewer, more = MatchingRecipe.paper(ipc), MatchingRecipe.paper(ipc + 1)
    assert fewer.matching_steps == ipc
    assert 1 <= fewer.inner_epochs < more.inner_epochs <= 50


@given(st.integers(11, 400).filter(lambda ipc: ipc % 10 != 0))
def test_above_ten_images_steps_times_epochs_stay_near_500(ipc):
    recipe = MatchingRecipe.paper(ipc)
    assert recipe.matching_steps == ipc
    assert abs(ipc * recipe.inner_epochs - 500) <= ipc / 2


@pytest.mark.parametrize("ipc", [1, 3, 10, 25])
def test_quick_is_shorter_than_the_paper(ipc):
    quick, paper = MatchingRecipe.quick(ipc), MatchingRecipe.paper(ipc)
    assert quick.ipc == ipc
    assert quick.iterations < paper.iterations
    assert quick.matching_steps <= paper.matching_steps
    assert quick.initial == "real"


@pytest.mark.parametrize(
    "name", ["ipc", "iterations", "matching_steps", "network_batch", "real_batch", "width", "depth"]
)
@pytest.mark.parametrize("value", [0, -1])
def test_counts_below_one_are_refused(name, value):
    with pytest.raises(InputError, match=f"{name} must be 1 or more, got {value}"):
        replace(MatchingRecipe(), **{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("inner_epochs", -1),
        ("image_learning_rate", 0.0),
        ("image_learning_rate", float("nan")),
        ("network_learning_rate", -0.1),
        ("initial", "reals"),
        ("distance", "layerwise"),
        ("image_momentum", -0.5),
        ("chunk", -1),
    ],
)
def test_other_values_that_cannot_be(name, value):
    with pytest.raises(InputError, match=name):
        replace(MatchingRecipe(), **{name: value})


def test_an_unknown_distance_gets_the_nearest_names():
    with pytest.raises(InputError, match="No distance is called 'euclidean'") as caught:
        MatchingRecipe(distance="euclidean")
    assert caught.value.hint.startswith("Did you mean squared-euclidean?")


def test_no_inner_epochs_are_allowed():
    assert MatchingRecipe(inner_epochs=0).inner_epochs == 0


@pytest.mark.parametrize("make", [MatchingRecipe.paper, MatchingRecipe.quick])
def test_a_recipe_for_no_image_is_refused(make):
    with pytest.raises(InputError, match="ipc"):
        make(0)
