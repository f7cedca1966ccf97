"""Which augmentation a training on each kind of proxy has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_search import write_space

from nasproxy.compare.plan import plan_comparison
from nasproxy.compare.settings import CompareSettings
from nasproxy.condensation.distribution_matching import DistributionRecipe
from nasproxy.datasets.image_dataset import ImageDataset
from nasproxy.datasets.load import load_dataset
from nasproxy.progress import Silent
from nasproxy.proxies.make import make_proxy, random_proxy
from nasproxy.proxies.proxy_file import save_proxy
from nasproxy.search.plan import make_plan
from nasproxy.search.settings import SearchSettings

UPRIGHT = "siamese:color-crop-cutout-scale-rotate"
"""Of digits, which mean something else in the mirror."""


def settings_of(folder: Path, **asked: Any) -> SearchSettings:
    return SearchSettings(space=str(write_space(folder)), top_k=2, executor="inline", out=folder / "run", **asked)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"proxy": "dm"}, UPRIGHT),
        ({"proxy": "dsa"}, UPRIGHT),
        ({"proxy": "dc"}, UPRIGHT),
        ({"proxy": "random"}, UPRIGHT),
        ({"proxy": "dc", "augmentation": "none"}, "none"),
        ({"proxy": "dm", "augmentation": "none"}, "none"),
        ({"proxy": "dm", "augmentation": "crop"}, "crop"),
        ({"proxy": "random", "augmentation": "siamese"}, UPRIGHT),
        ({"proxy": "random", "augmentation": "siamese:flip"}, "siamese:flip"),
        ({"proxy": "early-stopping"}, "none"),
        ({"proxy": "early-stopping", "augmentation": "siamese"}, "none"),
    ],
)
def test_all_sets_are_trained_on_as_dsa_and_dm_are_in_their_papers(
    tmp_path: Path, asked: dict[str, Any], expected: str
):
    assert make_plan(settings_of(tmp_path, **asked), resume=False).proxy_recipe.augmentation == expected


@pytest.mark.parametrize(
    ("proxy", "expected"), [("random", 0.3), ("early-stopping", 0.3), ("early-stopping-subset", 0.3), ("whole", 0.05)]
)
def test_candidates_train_at_the_learning_rate_that_was_asked_for(tmp_path: Path, proxy: str, expected: float):
    settings = settings_of(tmp_path, proxy=proxy, learning_rate=0.3, finalist_learning_rate=0.05)
    assert make_plan(settings, resume=False).proxy_recipe.learning_rate == expected


@pytest.fixture(scope="module")
def digits() -> ImageDataset:
    return load_dataset("digits")


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ({"augmentation": "color-flip"}, "siamese:color-flip"),
        ({"augmentation": "none"}, UPRIGHT),
        ({"augmentation": ["odd"]}, UPRIGHT),
        ({}, UPRIGHT),
    ],
)
def test_a_proxy_file_says_what_it_was_condensed_with(
    tmp_path: Path, digits: ImageDataset, recipe: dict[str, Any], expected: str
):
    file = save_proxy(replace(random_proxy(digits, 1, seed=0), recipe=recipe), tmp_path / "given.safetensors")
    assert make_plan(settings_of(tmp_path, proxy=str(file)), resume=False).proxy_recipe.augmentation == expected


def test_a_comparison_says_how_it_trains_on_each_proxy(tmp_path: Path, digits: ImageDataset):
    method = DistributionRecipe(ipc=2, iterations=1, augmentation="crop", width=4, depth=1)
    made = make_proxy(digits, method, seed=0, device=torch.device("cpu"), precision="float32", use_cache=False)
    file = str(save_proxy(made, tmp_path / "cropped.safetensors"))
    named = CompareSettings(settings_of(tmp_path, ipc=2), ("random", file, "herding", "early-stopping", "parameters"))
    plan = plan_comparison(named, resume=False, progress=Silent())
    trained_on = ("random", "cropped", "herding", "early-stopping")
    assert [plan.of_proxy(name).proxy_recipe.augmentation for name in trained_on] == [
        UPRIGHT, "siamese:crop", UPRIGHT, "none"
    ]  # fmt: skip
    assert [note for note in plan.notes if "augmented" in note] == [
        f"Trainings on the images of random, herding are augmented: {UPRIGHT}.",
        "Trainings on the images of cropped are augmented: siamese:crop.",
    ]
