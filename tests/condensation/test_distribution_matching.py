"""Distribution matching against a second implementation and, where features are linear, a closed form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from algorithm_1 import convolved, statistics_of
from plain_augmentation import Augmented
from scaled_space import scaled_space
from tiny import tiny_dataset, with_other_held_out_images
from torch import nn

from nasproxy.condensation.distribution_matching import (
    LARGEST_STEP,
    DistributionRecipe,
    _default_features,
    distribution_loss,
    features,
)
from nasproxy.errors import DatasetError, DivergedError, InputError
from nasproxy.networks.convnet import ConvNet

RECIPE = DistributionRecipe(ipc=2, iterations=3, width=4, depth=1, augmentation="none")
STILL = 1e-30  # an image learning rate that moves no float32 image


def run(dataset, recipe, seed=0, precision="float32", **more):
    return recipe.make(dataset, seed=seed, device=torch.device("cpu"), precision=precision, **more)


@pytest.fixture(scope="module")
def dataset():
    return tiny_dataset((7, 5), channels=3)


def test_features_are_what_the_last_linear_layer_is_given():
    network = ConvNet(3, 2, (8, 8), width=4, depth=2)
    images = torch.randn(5, 3, 8, 8)
    assert torch.equal(features(network, images), network.embed(images))
    tokens = nn.Sequential(nn.Flatten(2), nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 2))  # one row a channel
    images = torch.randn(5, 3, 4, 4)
    assert torch.equal(features(tokens, images), tokens[:3](images).flatten(1))
    assert not any(module._forward_pre_hooks for module in tokens.modules())


def test_a_network_without_a_linear_layer_is_an_error():
    with pytest.raises(InputError, match="Sequential has no linear layer"):
        features(nn.Sequential(nn.Conv2d(1, 2, 4), nn.Flatten()), torch.randn(2, 1, 4, 4))


def test_on_linear_features_the_loss_and_its_gradient_are_the_closed_form():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.Linear(5, 3)).double()
    real, synthetic = torch.randn(6, 1, 4, 4).double(), torch.randn(4, 1, 4, 4).double().requires_grad_()
    loss = distribution_loss(network, [real], [synthetic], precision="float32")
    loss.backward()
    weight = network[1].weight.detach().numpy()
    apart = (real.mean(0) - synthetic.detach().mean(0)).numpy().ravel()
    assert loss.item() == pytest.approx(apart @ weight.T @ weight @ apart, rel=1e-5)
    slope = -2 / 4 * weight.T @ weight @ apart
    for image in synthetic.grad:
        np.testing.assert_allclose(image.numpy().ravel(), slope, rtol=1e-4, atol=1e-6)


def test_a_distance_can_be_weighed_as_one_between_fewer_features():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    real, synthetic = torch.randn(6, 1, 4, 4), torch.randn(4, 1, 4, 4)
    whole, weighed = (distribution_loss(network, [real], [synthetic], precision="float32", like=n) for n in (None, 4))
    assert weighed.item() == pytest.approx(whole.item() * 4 / 16, rel=1e-5)


def test_networks_of_a_space_with_many_features_leave_the_images_near_real_ones(tmp_path):
    file = tmp_path / "many.py"
    file.write_text(
        "from torch import nn\n\n"
        "from nasproxy import SearchSpace\n\n\n"
        "class Many(SearchSpace):\n"
        '    name = "many"\n'
        '    choices = {"filters": [128]}\n\n'
        "    def build(self, config, *, in_channels, num_classes, image_size):\n"
        '        filters = config["filters"]\n'
        "        block = [nn.Conv2d(in_channels, filters, 3, padding=1), nn.GroupNorm(4, filters), nn.ReLU()]\n"
        "        return nn.Sequential(*block, nn.Flatten(), nn.LazyLinear(num_classes))\n"
    )
    recipe = DistributionRecipe(ipc=2, iterations=20, network=f"space:{file}", augmentation="none")
    images = run(tiny_dataset((7, 5), size=(16, 16)), recipe).images
    assert images.abs().max() < 10


@pytest.mark.parametrize(("scale", "bounded"), [(1000.0, True), (0.001, False)])
def test_a_network_of_a_space_moves_the_images_by_so_much_at_most(tmp_path, scale, bounded):
    network = scaled_space(tmp_path, scale)
    recipe = DistributionRecipe(ipc=2, iterations=1, network=network, augmentation="none")
    dataset = tiny_dataset((7, 5), size=(8, 8))
    before = run(dataset, replace(recipe, image_learning_rate=STILL)).images
    step = (run(dataset, replace(recipe, image_learning_rate=2.0)).images - before).square().mean().sqrt()
    if bounded:
        assert step.item() == pytest.approx(2 * LARGEST_STEP, rel=1e-3)
    else:
        assert 0 < step < 0.1 * LARGEST_STEP


def test_the_gradient_agrees_with_finite_differences():
    torch.manual_seed(0)
    network = ConvNet(1, 2, (4, 4), width=3, depth=1, activation="sigmoid").double()
    real, images = torch.randn(4, 1, 4, 4).double(), torch.randn(2, 1, 4, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: distribution_loss(network, [real], [x], precision="float32"), images)


def embed(weights, images, statistics):
    """Of one block; batch normalisation where there are ``statistics``."""
    scale, shift = weights[2:4]
    rows = convolved(weights, images)
    if statistics is None:
        normal = F.group_norm(rows, len(scale), scale, shift)
    else:
        mean, variance = (values.view(1, -1, 1, 1) for values in statistics)
        normal = (rows - mean) / (variance + 1e-5).sqrt() * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)
    return F.avg_pool2d(F.relu(normal), 2).flatten(1)


def second_implementation(dataset, recipe, first_images, first_weights, augment=lambda images: images):
    """In float64, whole classes as batches, features summed image by image.

    ``augment`` is called with the real and the synthetic images of each class as one batch.
    """
    of_real = of_ours = None
    mean, std = (torch.tensor(v).double().view(1, -1, 1, 1) for v in vars(dataset.normalisation).values())
    real = (dataset.train.images.double() / 255 - mean) / std
    images, speed, losses = first_images.double(), 0.0, []
    for state in first_weights:
        weights = [value.double() for value in state.values()]
        mine = images.detach().requires_grad_()
        pairs = []
        for label, part in enumerate(mine.split(recipe.ipc)):
            members = real[dataset.train.labels == label]
            pairs.append(augment(torch.cat([members, part])).split([len(members), len(part)]))
        if recipe.norm == "batch":  # no class has more images than are shown
            of_real, of_ours = (
                statistics_of(weights, torch.cat(shown), unbiased=unbiased)
                for shown, unbiased in zip(zip(*pairs, strict=True), (True, False), strict=True)
            )
        loss = torch.zeros((), dtype=torch.float64)
        for members, part in pairs:
            ours = sum(embed(weights, image[None], of_real) for image in members) / len(members)
            theirs = sum(embed(weights, image[None], of_ours) for image in part) / recipe.ipc
            loss = loss + sum((a - b) ** 2 for a, b in zip(ours[0], theirs[0], strict=True))
        loss.backward()
        speed = recipe.image_momentum * speed + mine.grad
        images = images - recipe.image_learning_rate * speed
        losses.append(float(loss.detach()) / dataset.num_classes)
    return images, losses


@pytest.mark.parametrize(("initial", "norm"), [("noise", "instance"), ("real", "instance"), ("real", "batch")])
def test_equals_a_second_implementation(dataset, first_weights, initial, norm):
    recipe = replace(RECIPE, initial=initial, norm=norm)
    first = run(dataset, replace(recipe, image_learning_rate=STILL)).images
    first_weights.clear()
    made = run(dataset, recipe)
    assert len(first_weights) == 3
    images, losses = second_implementation(dataset, recipe, first, first_weights)
    assert (images - first).abs().max() > 0.01  # the comparison is of something that moved
    torch.testing.assert_close(made.images.double(), images, rtol=0, atol=1e-4)
    assert made.losses == pytest.approx(losses, rel=1e-4)


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("augmentation", ["color", "crop", "cutout", "flip", "scale", "rotate", "auto"])
def test_equals_a_second_implementation_of_loss_and_augmentation(monkeypatch, first_weights, augmentation, norm):
    dataset = tiny_dataset((5, 4), channels=2, size=(6, 6))
    augment = Augmented(monkeypatch)
    recipe = replace(RECIPE, augmentation=augmentation, norm=norm)
    first = run(dataset, replace(recipe, image_learning_rate=STILL)).images
    first_weights.clear()
    augment.restart()
    made = run(dataset, recipe)
    images, losses = second_implementation(dataset, recipe, first, first_weights, augment)
    assert (images - first).abs().max() > 0.01
    torch.testing.assert_close(made.images.double(), images, rtol=0, atol=1e-4)
    assert made.losses == pytest.approx(losses, rel=1e-4)


def test_real_and_synthetic_images_get_the_same_transformation():
    # Synthetic images that are the class's real ones, all of them, have their mean features after it as well.
    recipe = replace(RECIPE, ipc=5, iterations=12, augmentation="auto", image_learning_rate=STILL)
    assert max(run(tiny_dataset((5, 5), channels=3), recipe).losses) < 1e-8


def test_the_loss_goes_down_also_in_networks_that_were_not_seen():
    dataset = tiny_dataset((20, 20), seed=1)
    recipe = replace(RECIPE, ipc=1, iterations=60, width=8, initial="noise", image_learning_rate=3.0)
    first, made = run(dataset, replace(recipe, image_learning_rate=STILL)), run(dataset, recipe)
    assert sum(made.losses[-10:]) < 0.5 * sum(made.losses[:10])
    torch.manual_seed(99)
    network = ConvNet(1, 2, (8, 8), width=8, depth=1)
    real = dataset.normalisation.apply(dataset.train.images)[dataset.train.labels == 0]
    before, after = (distribution_loss(network, [real], [m.images[:1]], precision="float32") for m in (first, made))
    assert after < 0.6 * before


@pytest.mark.parametrize("network", ["vgg11", "resnet18"])
def test_deep_networks_with_batch_normalisation_leave_the_images_near_real_ones(network):
    dataset = tiny_dataset((20, 20), size=(32, 32), channels=3)
    made = run(dataset, DistributionRecipe(ipc=1, iterations=6, network=network, augmentation="none"))
    assert made.images.abs().max() < 5
    assert made.losses[-1] < 3 * made.losses[0]


def test_batch_normalisation_sees_real_images_as_they_are_augmented():
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(4, 2))
    real = [torch.full((20, 1, 2, 2), 3.0), torch.full((4, 1, 2, 2), 5.0)]
    with torch.no_grad():
        loss = distribution_loss(network, real, [images[:1] for images in real], precision="float32")
    # 16 of the first and 4 of the second are shown; of the synthetic images as many of both.
    shown, own = torch.tensor([3.0] * 16 * 4 + [5.0] * 4 * 4), torch.tensor([3.0, 5.0])
    of_real = [(value - shown.mean()) / shown.var().sqrt() for value in own]
    of_synthetic = [(value - own.mean()) / own.var(unbiased=False).sqrt() for value in own]
    expected = sum(4 * (a - b) ** 2 for a, b in zip(of_real, of_synthetic, strict=True))
    assert loss.item() == pytest.approx(float(expected), rel=1e-3)


@pytest.mark.parametrize("chunk", [0, 3])
def test_batch_normalisation_without_moving_averages_sees_all_real_images_at_once(chunk):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(1, track_running_stats=False)
    network = nn.Sequential(norm, nn.Flatten(), nn.Linear(1024, 2))
    real = [torch.randn(40, 1, 32, 32), 2 + torch.randn(7, 1, 32, 32)]  # the first are more than a CPU takes at a time
    synthetic = [torch.randn(2, 1, 32, 32), 1 + torch.randn(2, 1, 32, 32)]
    expected = 0.0
    (ours, theirs) = (torch.cat(images).double() for images in (real, synthetic))
    ours, theirs = ((x - x.mean()) / (x.var(unbiased=False) + 1e-5).sqrt() for x in (ours, theirs))
    for one, other in zip(ours.split([40, 7]), theirs.split([2, 2]), strict=True):
        expected += float((one.mean(0) - other.mean(0)).square().sum())
    with torch.no_grad():
        loss = distribution_loss(network, real, synthetic, precision="float32", chunk=chunk)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("shape", "features"), [((1, (28, 28)), 2048), ((3, (28, 28)), 1152), ((3, (4, 4)), 128)])
def test_networks_of_a_space_are_weighed_as_the_default_convnet(shape, features):
    channels, size = shape
    assert _default_features(channels, size) == features
    if min(size) >= 8:
        assert ConvNet(channels, 2, size).classifier.in_features == features


@pytest.mark.parametrize(("ipc", "channels"), [(1, 1), (3, 3), (4, 1)])
def test_any_number_of_images_of_unequal_classes(ipc, channels):
    made = run(tiny_dataset((9, 5, 4), channels=channels), replace(RECIPE, ipc=ipc, augmentation="auto"))
    assert made.images.shape == (3 * ipc, channels, 8, 8)
    assert made.labels.tolist() == [c for c in range(3) for _ in range(ipc)]
    assert len(made.losses) == 3


def test_the_seed_decides_and_only_the_training_part_is_seen(dataset):
    recipe = replace(RECIPE, augmentation="auto")
    one, again, other = (run(dataset, recipe, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.images, again.images)
    assert not torch.equal(one.images, other.images)
    assert torch.equal(one.images, run(with_other_held_out_images(dataset), recipe).images)


def test_bfloat16_moves_the_images_in_nearly_the_same_direction(dataset):
    recipe = replace(RECIPE, iterations=1)
    first = run(dataset, replace(recipe, image_learning_rate=STILL)).images
    exact, rounded = (run(dataset, recipe, precision=precision).images - first for precision in ("float32", "bfloat16"))
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    assert float(F.cosine_similarity(exact.flatten(), rounded.flatten(), dim=0)) > 0.99


def test_errors(dataset):
    with pytest.raises(DatasetError, match="class 'class 1' has 5"):
        run(dataset, replace(RECIPE, ipc=6))
    with pytest.raises(DivergedError, match="outer iteration 1 of 3"):
        run(dataset, replace(RECIPE, image_learning_rate=float("inf")))
    with pytest.raises(InputError, match="No augmentation"):
        replace(RECIPE, augmentation="colour")


def test_presets():
    paper, quick = (DistributionRecipe.preset(name, 7) for name in ("paper", "quick"))
    assert (paper.ipc, paper.iterations, paper.image_learning_rate, paper.image_momentum) == (7, 20_000, 1.0, 0.5)
    assert (paper.real_batch, paper.initial, paper.augmentation) == (256, "real", "auto")
    assert (quick.ipc, quick.iterations < 1000) == (7, True)
    assert RECIPE.expected_seconds(tiny_dataset(), device=torch.device("cpu"), precision="float32") > 0
