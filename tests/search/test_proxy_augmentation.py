"""Which augmentation a training on each kind of proxy has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_search import write_space

from nasproxy.compare.plan import plan_comparison
from nasproxy.compare.settings import CompareSettings
from nasproxy.datasets.image_dataset import ImageDataset
from nasproxy.datasets.load import load_dataset
from nasproxy.progress import Silent
from nasproxy.proxies.make import random_proxy
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
        ({"proxy": "dc"}, "none"),
        ({"proxy": "random"}, "none"),
        ({"proxy": "dm", "augmentation": "none"}, "none"),
        ({"proxy": "dm", "augmentation": "crop"}, "crop"),
        ({"proxy": "random", "augmentation": "siamese"}, UPRIGHT),
        ({"proxy": "random", "augmentation": "siamese:flip"}, "siamese:flip"),
        ({"proxy": "early-stopping", "augmentation": "siamese"}, "none"),
    ],
)
def test_sets_of_dsa_and_dm_are_trained_on_as_their_papers_do(tmp_path: Path, asked: dict[str, Any], expected: str):
    assert make_plan(settings_of(tmp_path, **asked), resume=False).proxy_recipe.augmentation == expected


@pytest.fixture(scope="module")
def digits() -> ImageDataset:
    return load_dataset("digits")


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [({"augmentation": "color-flip"}, "siamese:color-flip"), ({"augmentation": ["odd"]}, "none"), ({}, "none")],
)
def test_a_proxy_file_says_what_it_was_condensed_with(
    tmp_path: Path, digits: ImageDataset, recipe: dict[str, Any], expected: str
):
    file = save_proxy(replace(random_proxy(digits, 1, seed=0), recipe=recipe), tmp_path / "given.safetensors")
    assert make_plan(settings_of(tmp_path, proxy=str(file)), resume=False).proxy_recipe.augmentation == expected


def test_a_comparison_trains_on_each_proxy_in_its_own_way_and_says_so(tmp_path: Path):
    named = CompareSettings(settings_of(tmp_path, ipc=2), ("random", "dm", "parameters"))
    plan = plan_comparison(named, resume=False, progress=Silent())
    assert [plan.of_proxy(name).proxy_recipe.augmentation for name in ("random", "dm")] == ["none", UPRIGHT]
    assert [note for note in plan.notes if "augmented" in note] == [
        f"Trainings on the images of dm are augmented: {UPRIGHT}."
    ]
