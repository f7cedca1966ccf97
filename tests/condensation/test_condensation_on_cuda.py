"""On a GPU as on the CPU, which draws all random numbers for both."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import tiny_dataset

from nasproxy.condensation import gradient_matching, inner_training
from nasproxy.condensation.distribution_matching import DistributionRecipe
from nasproxy.condensation.recipe import MatchingRecipe
from nasproxy.condensation.siamese import SiameseRecipe
from nasproxy.training import recorded, train
from nasproxy.training.recorded import Recorded, RecordedStep

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

CPU, GPU = torch.device("cpu"), torch.device("cuda")
STILL = 1e-30  # an image learning rate that moves no float32 image
SMALL = {"ipc": 3, "iterations": 2, "width": 8, "depth": 2}
MATCHING = {**SMALL, "image_learning_rate": 3.0, "matching_steps": 3, "inner_epochs": 4, "network_learning_rate": 0.1}
# 32 inner steps, the fewest that are recorded, 6 = 4 + 2: with each the two devices' roundings grow apart.
LONG = {**MATCHING, "inner_epochs": 8, "network_batch": 4}
RECIPES = {
    "dc": MatchingRecipe(**MATCHING),
    "dc from real images": MatchingRecipe(**MATCHING, initial="real"),
    "dc, recorded": MatchingRecipe(**LONG),
    "dc, recorded, batch norm": MatchingRecipe(**LONG, norm="batch"),
    "dc in chunks": MatchingRecipe(**MATCHING, chunk=2),
    "dsa": SiameseRecipe(**MATCHING),
    "dsa, recorded": SiameseRecipe(**LONG),
    "dm": DistributionRecipe(**SMALL, image_learning_rate=30.0),
    "dm, batch norm": DistributionRecipe(**SMALL, image_learning_rate=30.0, norm="batch"),
}


@pytest.fixture(autouse=True)
def _float32(monkeypatch):
    """Not the 10 bits that convolutions have on a GPU by default."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


def run(recipe, device):
    return recipe.make(tiny_dataset((9, 7), channels=3), seed=0, device=device, precision="float32")


@pytest.mark.parametrize("name", RECIPES)
def test_the_images_and_losses_are_those_of_the_cpu(name):
    recipe = RECIPES[name]
    still = replace(recipe, image_learning_rate=STILL)
    first = run(still, CPU).images
    assert torch.equal(run(still, GPU).images, first)
    expected, made = run(recipe, CPU), run(recipe, GPU)
    assert made.images.device == CPU
    assert (expected.images - first).abs().max() > 0.05  # the comparison is of something that moved
    torch.testing.assert_close(made.images, expected.images, rtol=0, atol=1e-3)
    assert made.losses == pytest.approx(expected.losses, rel=1e-3)


@pytest.mark.parametrize("name", [name for name in RECIPES if "recorded" in name])
def test_one_recording_serves_all_trainings_of_a_network(monkeypatch, name):
    made, step_of = [], inner_training.step_of

    def kept(*arguments):
        made.append(step_of(*arguments))
        return made[-1]

    monkeypatch.setattr(inner_training, "step_of", kept)
    images = run(RECIPES[name], GPU).images
    assert len(made) == 2
    for step in made:
        assert isinstance(step, RecordedStep)
        assert step.reason is None
        assert len(step._recordings) == 2
    monkeypatch.setattr(train, "RECORDED", 10**9)
    torch.testing.assert_close(run(RECIPES[name], GPU).images, images, rtol=0, atol=1e-4)
    assert not any(isinstance(step, RecordedStep) for step in made[2:])


@pytest.mark.parametrize("name", ["dc", "dsa", "dc, recorded, batch norm"])
def test_recorded_matching_gives_the_images_of_the_cpu(monkeypatch, name):
    made = []
    monkeypatch.setattr(gradient_matching, "RECORDED", 1)
    monkeypatch.setattr(gradient_matching, "Recorded", lambda *those: made.append(Recorded(*those)) or made[-1])
    # The check of types, which only tests have, draws items of sequences by Python's random numbers.
    monkeypatch.setattr(recorded, "_host_state", lambda network: {})
    torch.testing.assert_close(run(RECIPES[name], GPU).images, run(RECIPES[name], CPU).images, rtol=0, atol=1e-3)
    assert [(one.reason, len(one._recordings)) for one in made] == [(None, 2)] * 2  # classes of 9 and of 7
