"""The test kit passes what is sound, ours among it, and fails what is not."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
import torch
from tiny_search import SPACE, write_space

from nasproxy.condensation.recipe import MatchingRecipe
from nasproxy.coresets.herding import Herding
from nasproxy.coresets.k_center import KCenter
from nasproxy.coresets.random import RandomImages
from nasproxy.proxies.candidate_score import CandidateScore
from nasproxy.proxies.condensed import Condensed
from nasproxy.proxies.registry import find_proxy
from nasproxy.testing import CandidateScoreTests, ProxyMethodTests, SpaceTests

METHODS = {
    "random": RandomImages(ipc=2),
    "herding": Herding(ipc=2, epochs=1, width=4, depth=1),
    "k-center": KCenter(ipc=2, epochs=1, width=4, depth=1),
    "dc": MatchingRecipe(ipc=1, iterations=2, matching_steps=1, width=4, depth=1),
}
SCORES = ("grad-norm", "jacob-cov", "multiply-adds", "naswot", "parameters", "snip", "synflow")


def names_of(kit: type) -> list[str]:
    return [name for name in dir(kit) if name.startswith("test_")]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("test", names_of(ProxyMethodTests))
def test_our_methods_pass(name, test):
    kit = type("Kit", (ProxyMethodTests,), {"method": lambda self: METHODS[name]})()
    getattr(kit, test)()


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("test", names_of(CandidateScoreTests))
def test_our_scores_pass(name, test):
    kit = type("Kit", (CandidateScoreTests,), {"score": lambda self: find_proxy(name)(batch=12)})()
    getattr(kit, test)()


@pytest.mark.parametrize("test", names_of(SpaceTests))
def test_the_paper_space_passes(test):
    kit = type("Kit", (SpaceTests,), {"spec": "convnet720", "image_size": (8, 8), "tried": 2})()
    getattr(kit, test)()


def test_nothing_of_it_needs_pytest():
    code = "import sys, nasproxy.testing; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("before", "after", "test", "message"),
    [
        ("LazyLinear(num_classes)", "LazyLinear(7)", "a_sample_trains", r"expected \(4, 10\)"),
        (
            "Wait(), nn.Flatten()",
            "Noise(), nn.Flatten()",
            "a_seed_decides_the_weights",
            "other weights when it is built again",
        ),
        ("def build", "def sample(self, count, seed):\n        return [{}] * count\n    def build", "samples", "twice"),
        (
            "def build",
            "def is_valid(self, *_):\n        return 'no'\n    def build",
            "a_winner_can_be_handed_over",
            "no candidate of a sample of 12 is valid",
        ),
    ],
)
def test_a_broken_space_fails(tmp_path, before, after, test, message):
    noise = """
import random
class Noise(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("noise", torch.tensor(random.random()))
    def forward(self, images):
        return images
"""
    text = "import torch\n" + SPACE.replace("class Tiny", f"{noise}\nclass Tiny").replace(before, after)
    kit = type("Kit", (SpaceTests,), {"spec": str(write_space(tmp_path, text))})()
    name = next(name for name in names_of(SpaceTests) if test in name)
    with pytest.raises(AssertionError, match=message):
        getattr(kit, name)()


class Peeking(RandomImages):
    """Validation images for training ones."""

    def make(self, dataset, *, seed, device, precision, on_iteration=None):
        images = dataset.normalisation.apply(dataset.validation.images[: self.ipc * dataset.num_classes])
        labels = torch.arange(dataset.num_classes).repeat_interleave(self.ipc)
        return Condensed(images, labels, (), 0.0)


class Forgetful(RandomImages):
    """Draws from the global random state."""

    def make(self, dataset, *, seed, device, precision, on_iteration=None):
        return super().make(dataset, seed=int(torch.randint(99, ())), device=device, precision=precision)


class Unordered(RandomImages):
    """Mixes the classes."""

    def make(self, dataset, *, seed, device, precision, on_iteration=None):
        made = super().make(dataset, seed=seed, device=device, precision=precision)
        return Condensed(made.images, made.labels.flip(0), (), 0.0)


@pytest.mark.parametrize(
    ("method", "test"),
    [
        (Peeking, "test_only_the_training_part_is_looked_at"),
        (Forgetful, "test_the_seed_decides"),
        (Unordered, "test_makes_its_images_of_each_class_in_order"),
    ],
)
def test_a_broken_method_fails(method, test):
    kit = type("Kit", (ProxyMethodTests,), {"method": lambda self: method(ipc=2)})()
    with pytest.raises(AssertionError):
        getattr(kit, test)()


class Dice(CandidateScore):
    """Chance."""

    name = "dice"

    def score(self, model, images, labels):
        return random.random()


def test_a_broken_score_fails():
    kit = type("Kit", (CandidateScoreTests,), {"score": lambda self: Dice(batch=12)})()
    with pytest.raises(AssertionError, match="two scores"):
        kit.test_is_a_finite_number_that_the_weights_decide()
