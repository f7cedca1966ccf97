"""What is interrupted goes on as if nothing had been: bit for bit, from a file that is checked before it is believed."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import tiny_dataset
from torch import nn

from nasproxy.condensation.checkpoints import Checkpoints
from nasproxy.condensation.course import Course
from nasproxy.condensation.distribution_matching import DistributionRecipe
from nasproxy.condensation.recipe import MatchingRecipe
from nasproxy.condensation.siamese import SiameseRecipe
from nasproxy.errors import CheckpointError, DivergedError, WriteError
from nasproxy.proxies.make import make_proxy, open_checkpoints

WHERE = {"seed": 3, "device": torch.device("cpu"), "precision": "float32"}
DC = MatchingRecipe(ipc=2, iterations=5, matching_steps=2, inner_epochs=2, real_batch=4, width=4, depth=1)

SPACE = """
from torch import nn
from nasproxy import SearchSpace


class Dropping(SearchSpace):
    name = "dropping"
    choices = {"width": [2, 4, 8, 512], "dropout": [0.0, 0.5]}

    def build(self, config, *, in_channels, num_classes, image_size):
        return nn.Sequential(
            nn.Flatten(), nn.LazyLinear(config["width"]), nn.BatchNorm1d(config["width"]), nn.ReLU(),
            nn.Dropout(config["dropout"]), nn.LazyLinear(num_classes),
        )
"""
"""Draws from torch's own generator, has statistics of its own, and a width that is refused."""


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NASPROXY_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def dataset():
    return tiny_dataset((9, 6, 5), channels=3)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "it.checkpoint.safetensors"


def checkpoints(file: Path, dataset, recipe=DC, every: float = 0.0, **other) -> Checkpoints:
    found = open_checkpoints(file, dataset, recipe, every=every, **(WHERE | other))
    assert found is not None
    return found


def interrupted_after(count: int) -> Callable[[int, float], None]:
    def interrupt(iteration: int, _: float) -> None:
        if iteration == count:
            raise KeyboardInterrupt

    return interrupt


def stop(file: Path, dataset, recipe=DC, *, after: int = 2, every: float = 0.0) -> None:
    course = Course(checkpoints(file, dataset, recipe, every))
    with pytest.raises(KeyboardInterrupt):
        make_proxy(dataset, recipe, **WHERE, on_iteration=interrupted_after(after), course=course)


def go_on(file: Path, dataset, recipe=DC, **more):
    kept = checkpoints(file, dataset, recipe)
    start = kept.load()
    assert start is not None
    said: list[int] = []
    made = make_proxy(
        dataset, recipe, **WHERE, on_iteration=lambda number, _: said.append(number), course=Course(kept, start, **more)
    )
    assert said == list(range(len(start.losses) + 1, len(made.history) + 1))
    return made


def of_space(recipe, tmp_path: Path):
    path = tmp_path / "dropping.py"
    path.write_text(SPACE)
    return replace(recipe, network=f"space:{path}", max_multiply_adds=20_000)


@pytest.mark.parametrize(
    "recipe",
    [
        DC,
        replace(DC, initial="real", image_momentum=0.0),
        SiameseRecipe(ipc=2, iterations=5, matching_steps=2, inner_epochs=1, width=4, depth=1),
        DistributionRecipe(ipc=2, iterations=5, width=4, depth=1),
        "dc of a space",
        "dm of a space",
    ],
    ids=["dc", "without momentum", "dsa", "dm", "dc of a space", "dm of a space"],
)
def test_interrupted_twice_the_images_are_those_of_an_undisturbed_run(tmp_path, file, dataset, recipe):
    if isinstance(recipe, str):
        recipe = of_space(DC if recipe.startswith("dc") else DistributionRecipe(ipc=2, iterations=5), tmp_path)
    whole = make_proxy(dataset, recipe, **WHERE, use_cache=False)
    for entry in (tmp_path / "cache").rglob("*.safetensors"):
        entry.unlink()
    stop(file, dataset, recipe, after=1)
    kept = checkpoints(file, dataset, recipe)
    with pytest.raises(KeyboardInterrupt):
        course = Course(kept, kept.load())
        make_proxy(dataset, recipe, **WHERE, on_iteration=interrupted_after(3), course=course)
    made = go_on(file, dataset, recipe)
    assert torch.equal(made.images, whole.images)
    assert made.history == whole.history
    assert made.finished
    assert not file.exists()
