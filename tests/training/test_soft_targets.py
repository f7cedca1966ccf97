"""Trainings that aim at class probabilities, against the closed form of the loss and its gradient."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from call_again import call_again
from torch import nn

from nasproxy.training import train as module
from nasproxy.training.recipe import TrainingRecipe
from nasproxy.training.recorded import RecordedStep
from nasproxy.training.step import PlainStep
from nasproxy.training.train import Images, evaluate, train

CLASSES = 3


def draw(count=7):
    source = torch.Generator().manual_seed(0)
    images, labels = (
        torch.randn(count, 1, 2, 2, generator=source),
        torch.randint(0, CLASSES, (count,), generator=source),
    )
    return Images(images, labels, torch.randn(count, CLASSES, generator=source).softmax(dim=1))


def linear():
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, CLASSES))


def fit(model, data, recipe, **more):
    return train(model, data, recipe, data, seed=0, precision="float32", **more)


def test_loss_and_step_are_those_of_the_closed_form():
    data, model, losses = draw(), linear(), []
    weight, bias = (p.detach().double().clone() for p in model.parameters())
    fit(model, data, TrainingRecipe(epochs=1, weight_decay=0.0), on_batch=lambda _, logits, loss: losses.append(loss))
    x, aims = data.images.flatten(1).double(), data.soft_labels.double()
    exponentials = (x @ weight.T + bias).exp()
    probabilities = exponentials / exponentials.sum(dim=1, keepdim=True)
    by_hand = -sum(
        float(q) * math.log(float(p)) for q, p in zip(aims.flatten(), probabilities.flatten(), strict=True)
    ) / len(data)
    assert float(losses[0]) == pytest.approx(by_hand, rel=1e-5)
    slopes = (probabilities - aims) / len(data)
    after = [p.detach().double() for p in model.parameters()]
    assert torch.allclose(after[0], weight - 0.01 * slopes.T @ x, atol=1e-7)
    assert torch.allclose(after[1], bias - 0.01 * slopes.sum(0), atol=1e-7)


def test_batches_take_the_probabilities_of_their_own_images():
    data, seen = draw(), []
    given = Images(data.images, data.labels, F.one_hot(data.labels, CLASSES).float())
    recipe = TrainingRecipe(epochs=3, batch_size=3)
    hard, soft = linear(), linear()
    fit(hard, Images(data.images, data.labels), recipe)
    fit(soft, given, recipe, on_batch=lambda picked, *_: seen.append(picked))
    assert len(seen) == 6  # 3 and, as none may be alone, 4
    for one, other in zip(hard.parameters(), soft.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_accuracy_is_of_the_classes():
    data, model = draw(), linear()
    wrong = Images(data.images, data.labels, F.one_hot((data.labels + 1) % CLASSES, CLASSES).float())
    fit(model, wrong, TrainingRecipe(epochs=300, learning_rate=0.3))
    assert evaluate(model, wrong, epoch=1, precision="float32") == evaluate(model, data, epoch=1, precision="float32")
    rightly = float((model(data.images).argmax(1) == data.labels).float().mean())
    assert evaluate(model, wrong, epoch=1, precision="float32").accuracy == pytest.approx(rightly)
    assert rightly < 0.5


def test_a_recorded_step_is_fed_the_probabilities_of_each_batch(monkeypatch):
    made = []

    def recorded(model, recipe, precision, device, steps):
        made.append(RecordedStep(PlainStep(model, recipe, precision, device), call_again))
        return made[-1]

    recipe, plain, replayed = TrainingRecipe(epochs=4, batch_size=4), linear(), linear()
    fit(plain, draw(), recipe)
    monkeypatch.setattr(module, "step_of", recorded)
    fit(replayed, draw(), recipe)
    assert made[0].reason is None
    for one, other in zip(plain.parameters(), replayed.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_a_recorded_training_is_the_plain_one(monkeypatch):
    data = Images(*(tensor.cuda() for tensor in (draw().images, draw().labels, draw().soft_labels)))
    recipe, models, made = TrainingRecipe(epochs=40, batch_size=4), [], []
    monkeypatch.setattr(module, "RecordedStep", lambda step: made.append(RecordedStep(step)) or made[-1])
    for recorded in (1, 10**9):
        monkeypatch.setattr(module, "RECORDED", recorded)
        models.append(linear().cuda())
        fit(models[-1], data, recipe)
    assert [step.reason for step in made] == [None]
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
