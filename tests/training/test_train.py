"""Training against a hand-written loop, and evaluation against one image at a time."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nasproxy.networks.convnet import ConvNet
from nasproxy.training import train as module
from nasproxy.training.recipe import TrainingRecipe
from nasproxy.training.train import Images, Score, evaluate, settled_statistics, train


class Recorder(nn.Module):
    """A linear classifier that keeps what it is shown; ``positions`` finds an image among ``images``."""

    def __init__(self, pixels: int = 8, classes: int = 3) -> None:
        super().__init__()
        self.linear = nn.Linear(pixels, classes)
        self.shown: list[torch.Tensor] = []

    def forward(self, images):
        if self.training:
            self.shown.append(images.detach().clone())
        return self.linear(images.flatten(1))


def draw(count, *, classes=3, shape=(2, 2, 2), seed=0):
    source = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=source)
    return Images(torch.randn(count, *shape, generator=source), labels)


def positions(batch, images):
    return [int((images == image).flatten(1).all(1).nonzero()) for image in batch]


def fit(model, data, recipe, validation=None, **more):
    return train(model, data, recipe, validation or data, **{"seed": 0, "precision": "float32", **more})


def by_hand(model, data, recipe, batches, per_epoch):
    """Momentum SGD with weight decay in float64, over the batches that were seen."""
    weight, bias = (p.detach().double() for p in model.linear.parameters())
    speeds = [torch.zeros_like(weight), torch.zeros_like(bias)]
    for step, batch in enumerate(batches):
        x, y = data.images[batch].flatten(1).double(), data.labels[batch]
        error = (torch.softmax(x @ weight.T + bias, 1) - F.one_hot(y, 3)) / len(batch)
        slopes = [error.T @ x + recipe.weight_decay * weight, error.sum(0) + recipe.weight_decay * bias]
        speeds = [recipe.momentum * speed + slope for speed, slope in zip(speeds, slopes, strict=True)]
        rate = recipe.learning_rate * (1 if step // per_epoch < (recipe.epochs + 1) // 2 else 0.1)
        weight, bias = weight - rate * speeds[0], bias - rate * speeds[1]
    return weight, bias


@pytest.mark.parametrize(("batch_size", "per_epoch"), [(256, 1), (10, 1), (4, 3)])
def test_equals_a_loop_written_by_hand(batch_size, per_epoch):
    data, model = draw(10), Recorder()
    initial = copy.deepcopy(model)
    recipe = TrainingRecipe(epochs=5, learning_rate=0.3, weight_decay=0.05, batch_size=batch_size)
    fit(model, data, recipe)
    batches = [positions(batch, data.images) for batch in model.shown]
    assert len(batches) == 5 * per_epoch
    weight, bias = by_hand(initial, data, recipe, batches, per_epoch)
    torch.testing.assert_close(model.linear.weight.double(), weight, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.linear.bias.double(), bias, rtol=0, atol=1e-5)
    assert (model.linear.weight - initial.linear.weight).abs().max() > 0.1


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 23), st.integers(1, 9))
def test_an_epoch_shows_each_image_once_in_batches_of_more_than_one(count, size):
    data, model = draw(count), Recorder()
    fit(model, data, TrainingRecipe(epochs=2, batch_size=size))
    batches = [positions(batch, data.images) for batch in model.shown]
    for epoch in (batches[: len(batches) // 2], batches[len(batches) // 2 :]):
        assert sorted(position for batch in epoch for position in batch) == list(range(count))
        whole, rest = divmod(count, size)
        full = [size] * whole + [rest] * bool(rest)
        joined = [*full[:-2], full[-2] + 1] if len(full) > 1 and full[-1] == 1 else full
        assert [len(batch) for batch in epoch] == joined


def test_a_batch_normalised_network_survives_one_image_too_many():
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    assert fit(model, draw(9), TrainingRecipe(epochs=1, batch_size=4))[-1].epoch == 1


def test_statistics_of_one_image_more_than_a_batch_are_those_of_all():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4))
    images = torch.randn(257, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    with settled_statistics(model, Images(images, torch.zeros(257, dtype=torch.int64)), "float32"):
        torch.testing.assert_close(model[1].running_mean, images.flatten(1).mean(dim=0))


def two_norms():
    torch.manual_seed(0)
    hidden = nn.Linear(8, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 4), nn.BatchNorm1d(4)
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(4, 3))


def statistics_by_hand(model, images):
    """Of both normalisations, in float64: averages over batches of 256, each normalised by its own statistics."""
    weights = [value.detach().double().numpy() for value in model.state_dict().values() if value.ndim]
    linear, norm, second = weights[:2], weights[2:4], weights[6:8]
    found = []
    for batch in np.array_split(images.flatten(1).double().numpy(), [256, 512]):
        inner = batch @ linear[0].T + linear[1]
        apart = (inner - inner.mean(0)) / np.sqrt(inner.var(0) + model[2].eps)
        outer = np.tanh(norm[0] * apart + norm[1]) @ second[0].T + second[1]
        found.append([inner.mean(0), inner.var(0, ddof=1), outer.mean(0), outer.var(0, ddof=1)])
    return [np.mean(each, axis=0) for each in zip(*found, strict=True)]


@pytest.mark.parametrize("epochs", [6, 3])
def test_a_score_is_taken_under_the_statistics_of_the_images_that_are_given(epochs):
    model, real, seen = two_norms(), draw(600, seed=2), []

    def look(norm, _):
        if not norm.training:
            seen.append((norm.running_mean.clone(), norm.running_var.clone()))

    for norm in (model[2], model[5]):
        norm.register_forward_pre_hook(look)
    recipe = TrainingRecipe(epochs=6, learning_rate=0.3)
    fit(model, draw(10), recipe, draw(50, seed=1), epochs=epochs, statistics=real)
    assert len(seen) == 2  # one batch was evaluated
    for found, expected in zip([*seen[0], *seen[1]], statistics_by_hand(model, real.images), strict=True):
        np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-5)


def test_statistics_of_other_images_change_scores_and_nothing_else():
    recipe, given = TrainingRecipe(epochs=6, learning_rate=0.3, batch_size=4), draw(600, seed=2)
    plain, real = two_norms(), two_norms()
    expected = fit(plain, draw(10), recipe, draw(50, seed=1), evaluate_at=(2, 4))
    found = fit(real, draw(10), recipe, draw(50, seed=1), evaluate_at=(2, 4), statistics=given)
    assert all(one.cross_entropy != other.cross_entropy for one, other in zip(expected, found, strict=True))
    for name, value in plain.state_dict().items():
        assert torch.equal(value, real.state_dict()[name]), name


def test_a_network_without_batch_normalisation_never_sees_them():
    recipe, given, counts = TrainingRecipe(epochs=4, learning_rate=0.3), draw(600, shape=(2, 4, 4), seed=2), []
    data, validation = draw(13, shape=(2, 4, 4)), draw(50, shape=(2, 4, 4), seed=1)
    models = small_network("instance"), small_network("instance")
    models[1].register_forward_pre_hook(lambda _, inputs: counts.append(len(inputs[0])))
    scores = [
        fit(model, data, recipe, validation, evaluate_at=(1, 2), statistics=statistics)
        for model, statistics in zip(models, (None, given), strict=True)
    ]
    assert scores[0] == scores[1]
    assert counts == [13, 50, 13, 50, 13, 13, 50]
    for name, value in models[0].state_dict().items():
        assert torch.equal(value, models[1].state_dict()[name]), name


def test_every_epoch_has_another_order():
    data, model = draw(12), Recorder()
    fit(model, data, TrainingRecipe(epochs=4, batch_size=6))
    orders = {tuple(positions(torch.cat(model.shown[i : i + 2]), data.images)) for i in range(0, 8, 2)}
    assert len(orders) == 4


@pytest.mark.parametrize("batch_size", [4, 256])
def test_whoever_watches_is_shown_each_batch_as_it_was_before_the_step(batch_size):
    data, model, steps = draw(10), Recorder(), []
    before = copy.deepcopy(model)

    def watch(batch, logits, loss):
        expected = before.linear(data.images[batch].flatten(1)).detach()
        torch.testing.assert_close(logits, expected)
        assert float(loss) == pytest.approx(float(F.cross_entropy(expected, data.labels[batch])))
        assert not torch.equal(before.linear.weight, model.linear.weight)
        before.load_state_dict(model.state_dict())
        steps.append(batch.tolist())

    recipe = TrainingRecipe(epochs=3, learning_rate=0.3, batch_size=batch_size)
    assert train(model, data, recipe, None, seed=0, precision="float32", on_batch=watch) == []
    assert len(steps) == 3 * (3 if batch_size == 4 else 1)
    assert steps == [positions(batch, data.images) for batch in model.shown]


def test_the_seed_decides_the_order():
    shown = []
    for seed in (1, 1, 2):
        model = Recorder()
        fit(model, draw(12), TrainingRecipe(epochs=1, batch_size=6), seed=seed)
        shown.append(torch.cat(model.shown))
    assert torch.equal(shown[0], shown[1])
    assert not torch.equal(shown[0], shown[2])


@pytest.mark.parametrize("count", [1, 99, 100, 101, 257])
def test_evaluation_equals_one_image_at_a_time(count):
    data, model = draw(count, seed=3), Recorder()
    right, loss = 0, 0.0
    for image, label in zip(data.images, data.labels.tolist(), strict=True):
        logits = model.linear(image.flatten()).double().tolist()
        right += logits.index(max(logits)) == label
        loss += math.log(sum(map(math.exp, logits))) - logits[label]
    score = evaluate(model, data, epoch=7, precision="float32")
    assert score.epoch == 7
    assert score.accuracy == pytest.approx(right / count, abs=1e-7)
    assert score.cross_entropy == pytest.approx(loss / count, rel=1e-5)
    assert not score.diverged


def test_a_map_of_an_evaluation_on_a_gpu_takes_a_gibibyte_at_most():
    widest, bytes_each = 256, 4  # of the 720 ConvNets, in float32
    assert module._PIXELS * widest * bytes_each <= 2**30


def test_evaluation_is_in_evaluation_mode_and_changes_nothing():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    before = copy.deepcopy(model.state_dict())
    data = draw(30)
    one, other = (evaluate(model, data, epoch=1, precision="float32") for _ in range(2))
    assert one == other
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_training_goes_on_in_training_mode_after_a_score():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(8), nn.Linear(8, 3))
    fit(model, draw(10), TrainingRecipe(epochs=4), evaluate_at=(1, 2))
    assert int(model[1].num_batches_tracked) == 4


def small_network(norm="batch"):
    torch.manual_seed(0)
    return ConvNet(2, 3, (4, 4), width=4, depth=1, norm=norm)


@pytest.mark.parametrize("augmentation", ["none", "crop-flip", "siamese"])
@pytest.mark.parametrize("batch_size", [4, 256])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_shorter_training_has_the_scores_of_a_longer_one_at_its_epochs(augmentation, batch_size, precision):
    data, validation = draw(13, shape=(2, 4, 4)), draw(50, shape=(2, 4, 4), seed=1)
    recipe = TrainingRecipe(epochs=8, learning_rate=0.1, batch_size=batch_size, augmentation=augmentation)
    long = fit(small_network(), data, recipe, validation, precision=precision, evaluate_at=(1, 3, 6))
    assert [score.epoch for score in long] == [1, 3, 6, 8]
    assert len({score.cross_entropy for score in long}) == 4
    for index, epochs in enumerate((1, 3, 6, 8)):
        assert fit(small_network(), data, recipe, validation, precision=precision, epochs=epochs) == [long[index]]


def test_bfloat16_scores_nearly_alike_with_float32_weights():
    data, validation = draw(30, shape=(2, 4, 4)), draw(200, shape=(2, 4, 4), seed=1)
    scores = []
    for precision in ("float32", "bfloat16"):
        model = small_network("instance")
        scores += fit(model, data, TrainingRecipe(epochs=20), validation, precision=precision)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert scores[0] != scores[1]
    assert scores[1].cross_entropy == pytest.approx(scores[0].cross_entropy, rel=0.02)


def test_a_network_learns():
    source = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (120,), generator=source)
    patterns = torch.randn(3, 2, 4, 4, generator=source)
    images = patterns[labels] + 0.3 * torch.randn(120, 2, 4, 4, generator=source)
    data, validation = Images(images[:60], labels[:60]), Images(images[60:], labels[60:])
    score = fit(small_network("instance"), data, TrainingRecipe(epochs=30, learning_rate=0.1), validation)[-1]
    assert score.accuracy > 0.9
    assert score.cross_entropy < 0.4


def test_a_training_that_diverges_ends_at_the_score_that_shows_it():
    model = Recorder()
    recipe = TrainingRecipe(epochs=200, learning_rate=1e6)
    scores = fit(model, draw(10), recipe, evaluate_at=range(1, 200))
    assert scores[-1] == Score(scores[-1].epoch, 0.0, math.inf)
    assert [score.diverged for score in scores] == [False] * (len(scores) - 1) + [True]
    assert scores[-1].epoch < 200
    assert len(model.shown) == scores[-1].epoch


def test_weights_that_are_no_numbers_score_nothing():
    model = Recorder()
    with torch.no_grad():
        model.linear.weight[0, 0] = torch.nan
    score = evaluate(model, draw(10), epoch=2, precision="float32")
    assert score == Score(2, 0.0, math.inf)
    assert score.diverged
