"""Scores under batch-norm statistics of real images, in whole searches; test_train has the arithmetic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pandas.testing import assert_frame_equal
from tiny_search import read_table, recorded_trainings, write_space

from nasproxy.compare.plan import plan_comparison
from nasproxy.compare.settings import CompareSettings
from nasproxy.datasets.image_dataset import ImageDataset, Split
from nasproxy.datasets.load import load_dataset
from nasproxy.errors import RunError
from nasproxy.progress import Silent
from nasproxy.proxies.make import random_proxy
from nasproxy.search.bench import Payload
from nasproxy.search.run import SearchResult, payload_of, run_search
from nasproxy.search.settings import SearchSettings
from nasproxy.spaces.source import SpaceSource

SPACE = """
from torch import nn

from nasproxy import SearchSpace


class Normalised(SearchSpace):
    name = "normalised"
    choices = {"norm": ["batch", "none"], "width": [4, 8]}

    def build(self, config, *, in_channels, num_classes, image_size):
        width = config["width"]
        norm = [nn.BatchNorm1d(width)] if config["norm"] == "batch" else []
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(width), *norm, nn.ReLU(), nn.LazyLinear(num_classes))
"""


def search(folder: Path, name: str, **changed: Any) -> SearchResult:
    facts = {"space": str(write_space(folder, SPACE)), "proxy": "random", "ipc": 2, "epochs": 4, "finalist_epochs": 1}
    facts |= {"top_k": 4, "scheduler": "none", "evaluate_at": (2,), "executor": "inline", "out": folder / name}
    resume, progress = changed.pop("resume", False), changed.pop("progress", None)
    return run_search(SearchSettings(**{**facts, **changed}), resume=resume, progress=progress)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("statistics")


@pytest.fixture(scope="module")
def real(folder: Path) -> SearchResult:
    return search(folder, "real", norm_statistics="real")


def test_only_scores_on_the_proxy_of_networks_with_batch_normalisation_change(folder: Path, real: SearchResult):
    plain = search(folder, "proxy").table.set_index("id").sort_index()
    found = real.table.set_index("id").sort_index()
    same = plain["proxy_cross_entropy"] == found["proxy_cross_entropy"]
    assert list(same) == list(plain["params_norm"] == "none")
    for column in ("whole_accuracy", "whole_cross_entropy", "test_accuracy"):
        assert found[column].notna().all()
        assert list(found[column]) == list(plain[column])
    for file in (folder / "proxy" / "finalists").iterdir():
        assert file.read_bytes() == (real.directory / "finalists" / file.name).read_bytes()


class Interrupting(Silent):
    """Interrupts a run in the middle of its ranking."""

    def advance(self, headline: str = "", work: float = 1.0) -> None:
        self.advanced = getattr(self, "advanced", 0) + 1
        if self.advanced == 6:  # four candidates were measured before
            raise KeyboardInterrupt


def test_a_resumed_run_ends_with_the_same_table(folder: Path, real: SearchResult):
    with pytest.raises(KeyboardInterrupt):
        search(folder, "disturbed", norm_statistics="real", progress=Interrupting())
    done = recorded_trainings(folder / "disturbed")
    assert 0 < done.total() < 4
    with pytest.raises(RunError, match="norm_statistics was 'real', now None"):
        search(folder, "disturbed", resume=True)
    search(folder, "disturbed", norm_statistics="real", resume=True)
    assert_frame_equal(read_table(folder / "disturbed"), read_table(real.directory))
    assert set(recorded_trainings(folder / "disturbed").values()) == {1}


@pytest.fixture(scope="module")
def digits() -> ImageDataset:
    return load_dataset("digits")


def payload(folder: Path, dataset: ImageDataset, proxy: Any, *, real_statistics: bool = True) -> Payload:
    space = SpaceSource.parse(str(write_space(folder, SPACE)))
    where: dict[str, Any] = {"device": "cpu", "precision": "float32", "threads": 1}
    return Payload.of(space, dataset, proxy, **where, real_statistics=real_statistics)


def rows(images: np.ndarray, labels: Any) -> dict[bytes, int]:
    return {image.tobytes(): int(label) for image, label in zip(images, labels, strict=True)}


def test_they_are_of_a_thousand_training_images_the_same_ones_for_every_proxy(folder: Path, digits: ImageDataset):
    images, labels = payload(folder, digits, random_proxy(digits, 2, seed=0)).splits["statistics"]
    assert len(images) == 1000 < len(digits.train)
    found, train = rows(images, labels), rows(digits.train.images.numpy(), digits.train.labels)
    assert len(found) > 950  # hardly an image is there twice
    assert found.items() <= train.items()
    for part in (digits.validation, digits.test):
        assert not found.keys() & (rows(part.images.numpy(), part.labels).keys() - train.keys())
    first = np.bincount(labels[:256], minlength=10) / 256
    assert (np.abs(first - 0.1) < 0.08).all()  # four deviations: batches mix the classes
    again = payload(folder, digits, random_proxy(digits, 1, seed=3)).splits["statistics"]
    assert (again[0] == images).all()


def test_a_smaller_training_part_is_taken_whole(folder: Path, digits: ImageDataset):
    small = replace(digits, train=Split(digits.train.images[:50], digits.train.labels[:50]))
    images, labels = payload(folder, small, random_proxy(digits, 1, seed=0)).splits["statistics"]
    assert rows(images, labels) == rows(small.train.images.numpy(), small.train.labels)


def test_what_trains_on_real_images_or_does_not_ask_for_them_has_none(folder: Path, digits: ImageDataset):
    for proxy in (digits.train, None):
        assert "statistics" not in payload(folder, digits, proxy).splits
    assert "statistics" not in payload(folder, digits, random_proxy(digits, 1, seed=0), real_statistics=False).splits


@pytest.mark.parametrize("asked", ["proxy", "real"])
def test_a_comparison_hands_them_to_its_proxies_and_says_so(folder: Path, digits: ImageDataset, asked: str):
    space = str(write_space(folder, SPACE))
    settings = SearchSettings(space=space, ipc=2, top_k=2, norm_statistics=asked, executor="inline", out=folder / "no")
    plan = plan_comparison(CompareSettings(settings, ("random", "early-stopping")), resume=False, progress=Silent())
    found = payload_of(plan.of_proxy("random"), random_proxy(digits, 2, seed=0)).splits
    assert ("statistics" in found) == (asked == "real")
    assert "statistics" not in payload_of(plan.of_proxy("early-stopping"), digits.train).splits
    assert any("batch-norm statistics" in note for note in plan.notes) == (asked == "real")
