"""Recorded steps against plain ones: on the CPU with a recorder that only calls again, on CUDA with graphs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from call_again import call_again
from torch import nn

from nasproxy.networks.convnet import ConvNet
from nasproxy.training import train as module
from nasproxy.training.recipe import TrainingRecipe
from nasproxy.training.recorded import RecordedStep
from nasproxy.training.step import PlainStep
from nasproxy.training.train import Images, train

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def draw(count, *, seed=0, device="cpu"):
    source = torch.Generator().manual_seed(seed)
    images, labels = torch.randn(count, 2, 4, 4, generator=source), torch.randint(0, 3, (count,), generator=source)
    return Images(images.to(device), labels.to(device))


def network(*layers, norm="batch", width=4, depth=1, device="cpu"):
    torch.manual_seed(0)
    return nn.Sequential(*layers, ConvNet(2, 3, (4, 4), width=width, depth=depth, norm=norm)).to(device)


@pytest.fixture
def record_with(monkeypatch):
    """Has trainings record their steps by the recorder it is given; returns the list of all such steps."""

    def begin(record):
        made = []

        def step_of(model, recipe, precision, device, steps):
            made.append(RecordedStep(PlainStep(model, recipe, precision, device), record))
            return made[-1]

        monkeypatch.setattr(module, "step_of", step_of)
        return made

    return begin


def fit(model, recipe, precision="float32", *, seed=0, watch=None, device="cpu", evaluate_at=(1, 3)):
    data, validation = draw(13, device=device), draw(50, seed=1, device=device)
    more = {"seed": seed, "precision": precision, "evaluate_at": evaluate_at, "on_batch": watch}
    return train(model, data, recipe, validation, **more)


@pytest.mark.parametrize(
    ("batch_size", "augmentation", "momentum", "precision"),
    [
        (256, "none", 0.9, "float32"),
        (4, "crop-flip", 0.9, "bfloat16"),
        (4, "none", 0.0, "float32"),
        (4, "siamese", 0.9, "float32"),
    ],
)
def test_a_replayed_step_is_the_step(record_with, batch_size, augmentation, momentum, precision):
    recipe = TrainingRecipe(
        epochs=6, learning_rate=0.3, momentum=momentum, batch_size=batch_size, augmentation=augmentation
    )
    plain, seen = network(), []
    expected = fit(plain, recipe, precision, watch=lambda _, logits, loss: seen.append((logits.clone(), loss.clone())))
    made = record_with(call_again)
    again, found = network(), []
    assert fit(again, recipe, precision, watch=lambda _, *both: found.append([x.clone() for x in both])) == expected
    assert len({score.cross_entropy for score in expected}) == 3
    assert [step.reason for step in made] == [None]
    assert len(made[0]._recordings) == (2 if batch_size == 4 else 1)  # 13 = 4 + 4 + 5
    for name, value in plain.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    for one, other in zip(seen, found, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


class Counting(nn.Module):
    """Grows louder with each step."""

    def __init__(self):
        super().__init__()
        self.steps = 0

    def forward(self, images):
        self.steps += self.training
        return images * (1 + self.steps / 10)


class Tossing(nn.Module):
    """Leaves the images out now and then."""

    def forward(self, images):
        return images * (np.random.random() < 0.5) if self.training else images  # noqa: NPY002


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (Counting, "attributes of its modules"),
        (Tossing, "random numbers of NumPy"),
        (lambda: nn.Dropout(0.5), "random numbers of PyTorch on the CPU"),
    ],
)
def test_a_step_that_a_replay_would_not_repeat_is_taken_as_it_stands(record_with, layer, reason):
    recipe = TrainingRecipe(epochs=6, learning_rate=0.3)

    def scores():
        np.random.seed(0)  # noqa: NPY002
        return fit(network(layer()), recipe)

    expected = scores()
    made = record_with(call_again)
    found = scores()
    assert made[0].reason == f"a step changes {reason}"
    assert found == expected


def test_what_cannot_be_recorded_is_trained_all_the_same(record_with):
    recipe = TrainingRecipe(epochs=6, learning_rate=0.3, batch_size=4)
    expected = fit(network(), recipe)

    def refuse(step):
        step()
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    made = record_with(refuse)
    assert fit(network(), recipe) == expected
    assert made[0].reason == "RuntimeError: operation not permitted when stream is capturing"


@needs_cuda
@pytest.mark.parametrize("batch_size", [4, 256])
@pytest.mark.parametrize("norm", ["batch", "layer", "instance", "group"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_graph_gives_the_scores_of_plain_steps(monkeypatch, batch_size, norm, precision):
    recipe = TrainingRecipe(epochs=40, learning_rate=0.05, batch_size=batch_size)
    graph = fit(network(norm=norm, device="cuda"), recipe, precision, device="cuda")
    monkeypatch.setattr(module, "RECORDED", 10**9)
    plain = fit(network(norm=norm, device="cuda"), recipe, precision, device="cuda")
    for one, other in zip(graph, plain, strict=True):
        assert one.cross_entropy == pytest.approx(other.cross_entropy, rel=1e-3)


class Waiting(nn.Module):
    """Depends on its data."""

    def forward(self, images):
        return images * 2 if images.mean() > 0 else images


class Unrecordable(nn.Module):
    """Does what fails only while a graph is recorded."""

    def forward(self, images):
        torch.cuda.synchronize()
        return images


@needs_cuda
@pytest.mark.parametrize("layer", [Waiting, Unrecordable])
def test_a_network_without_a_graph_is_trained_and_the_next_one_has_its_graph(monkeypatch, layer):
    made = []
    monkeypatch.setattr(module, "RecordedStep", lambda step: made.append(RecordedStep(step)) or made[-1])
    recipe = TrainingRecipe(epochs=40)
    assert not fit(network(layer(), device="cuda"), recipe, device="cuda")[-1].diverged
    assert made[0].reason is not None
    assert not fit(network(nn.Dropout(0.5), device="cuda"), recipe, device="cuda")[-1].diverged
    assert made[1].reason is None
