"""The network's training between matching steps: whole steps, recorded or not, against the gradients' own path."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from call_again import call_again
from tiny import tiny_dataset
from torch import nn

from nasproxy.condensation import inner_training as module
from nasproxy.condensation.inner_training import InnerTraining
from nasproxy.condensation.outer_loop import Material
from nasproxy.condensation.siamese import SiameseRecipe
from nasproxy.networks.convnet import ConvNet
from nasproxy.training.recorded import RecordedStep
from nasproxy.training.step import PlainStep

CPU = torch.device("cpu")
RECIPE = SiameseRecipe(
    ipc=5, iterations=2, matching_steps=3, inner_epochs=4, network_learning_rate=0.1, network_batch=4, width=4, depth=1
)


@pytest.fixture
def whole(monkeypatch):
    """Has the CPU take whole steps, as a GPU does, and record them where it is told to; returns the list of them."""

    def begin(*, recorded):
        made = []

        def step_of(model, recipe, precision, device, steps):
            step = PlainStep(model, recipe, precision, device)
            made.append((RecordedStep(step, call_again) if recorded else step, steps))
            return made[-1][0]

        monkeypatch.setattr(module, "step_of", step_of)
        monkeypatch.setattr(module, "_step_in_chunks", module._whole_step)
        return made

    return begin


@pytest.mark.parametrize("augmentation", ["none", "auto"])
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_whole_steps_and_recorded_ones_condense_as_gradients_do(whole, norm, augmentation):
    dataset = tiny_dataset((9, 7), channels=2)
    recipe = replace(RECIPE, norm=norm, augmentation=augmentation)
    expected = recipe.make(dataset, seed=0, device=CPU, precision="float32")
    untrained = replace(recipe, inner_epochs=0).make(dataset, seed=0, device=CPU, precision="float32")
    assert (expected.images - untrained.images).abs().max() > 0.01  # the comparison is of something that matters
    made = whole(recorded=False)
    plain = recipe.make(dataset, seed=0, device=CPU, precision="float32")
    torch.testing.assert_close(plain.images, expected.images, rtol=0, atol=1e-5)
    assert plain.losses == pytest.approx(expected.losses, rel=1e-5)
    assert [steps for _, steps in made] == [2 * 4 * 3] * 2  # two trainings of each network, 10 images = 4 + 4 + 2
    made = whole(recorded=True)
    replayed = recipe.make(dataset, seed=0, device=CPU, precision="float32")
    assert torch.equal(replayed.images, plain.images)
    assert replayed.losses == plain.losses
    assert [(step.reason, len(step._recordings)) for step, _ in made] == [(None, 2)] * 2


class Odd(nn.Module):
    """Has a layer that takes no part, and one that is frozen."""

    def __init__(self):
        super().__init__()
        self.net = ConvNet(1, 2, (8, 8), width=4, depth=1)
        self.idle, self.frozen = nn.Linear(2, 2), nn.Conv2d(1, 1, 1).requires_grad_(False)

    def forward(self, images):
        return self.net(self.frozen(images))


@pytest.mark.parametrize("recorded", [False, True])
def test_what_takes_no_part_stays_as_it_is(whole, recorded):
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(10, 1, 8, 8, generator=generator), torch.arange(2).repeat_interleave(5)
    torch.manual_seed(0)
    first = Odd()
    networks = copy.deepcopy(first), copy.deepcopy(first)
    for network in networks:
        drawn = torch.Generator().manual_seed(1)
        material = Material(images, [torch.arange(5), torch.arange(5, 10)], images, labels, (), drawn, "float32")
        InnerTraining(network, material, RECIPE).run()
        whole(recorded=recorded)
    before = first.state_dict()
    for name, value in networks[0].state_dict().items():
        torch.testing.assert_close(networks[1].state_dict()[name], value, rtol=0, atol=1e-6)
        assert torch.equal(value, before[name]) == name.startswith(("idle", "frozen")), name
