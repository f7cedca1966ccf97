"""Siamese augmentation: the same transformation of real and synthetic images, in every matching step."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from algorithm_1 import algorithm_1
from tiny import tiny_dataset

from nasproxy.condensation import outer_loop
from nasproxy.condensation.gradient_matching import matching_loss
from nasproxy.condensation.networks import PaperNetworks
from nasproxy.condensation.recipe import MatchingRecipe
from nasproxy.condensation.siamese import SiameseRecipe
from nasproxy.errors import InputError
from nasproxy.networks import build
from nasproxy.networks.convnet import ConvNet
from nasproxy.training.strategy import AUGMENTATIONS
from nasproxy.training.transforms import draw_transform

RECIPE = SiameseRecipe(ipc=2, iterations=2, matching_steps=2, inner_epochs=3, width=4, depth=1)
WHERE = {"device": torch.device("cpu"), "precision": "float32"}
STILL = 1e-30  # an image learning rate that moves no float32 image


@pytest.fixture
def shown(monkeypatch):
    """All batches that the networks see."""
    batches = []

    class Recorded(ConvNet):
        def forward(self, images):
            batches.append(images.detach().clone())
            return super().forward(images)

    monkeypatch.setitem(build._CLASSES, "convnet", Recorded)
    return batches


def test_real_and_synthetic_images_get_the_same_transformation(shown):
    # Synthetic images that are the class's real ones, all of them, cannot be told from these after it either.
    dataset = tiny_dataset((5, 5), channels=3)
    recipe = replace(RECIPE, ipc=5, iterations=12, matching_steps=1, image_learning_rate=STILL)
    recipe.make(dataset, seed=0, **WHERE)
    plain = dataset.normalisation.apply(dataset.train.images)
    changed = 0
    for real, synthetic in zip(shown[::2], shown[1::2], strict=True):
        apart = torch.cdist(real.flatten(1), synthetic.flatten(1))
        assert apart.min(dim=0).values.max() < 1e-3
        assert sorted(apart.argmin(dim=1).tolist()) == list(range(5))
        changed += bool(torch.cdist(real.flatten(1), plain.flatten(1)).min(dim=1).values.max() > 0.1)
    assert len(shown) == 2 * 2 * 12
    assert changed > 12  # a crop by no pixel and half of the flips change nothing


def test_between_the_steps_each_image_has_parameters_of_its_own(shown):
    dataset = tiny_dataset((5, 5))
    recipe = replace(RECIPE, ipc=5, iterations=1, inner_epochs=8, augmentation="flip", image_learning_rate=STILL)
    recipe.make(dataset, seed=0, **WHERE)
    plain = dataset.normalisation.apply(dataset.train.images)
    inner = [batch for batch in shown if len(batch) == 10]
    flipped = [sum(not any(torch.equal(image, known) for known in plain) for image in batch) for batch in inner]
    assert len(inner) == 8
    assert 0 < sum(flipped) < 80
    assert any(0 < number < 10 for number in flipped)


def test_without_augmentation_it_is_gradient_matching():
    dataset = tiny_dataset()
    plain = MatchingRecipe(ipc=2, iterations=2, matching_steps=2, inner_epochs=3, width=4, depth=1, initial="real")
    made, expected = (r.make(dataset, seed=1, **WHERE) for r in (replace(RECIPE, augmentation="none"), plain))
    assert torch.equal(made.images, expected.images)
    assert made.losses == expected.losses
    assert not torch.equal(RECIPE.make(dataset, seed=1, **WHERE).images, made.images)


class Drawn:
    """One draw: its parameters, and the batches that it was applied to."""

    def __init__(self, transform):
        self.transform, self.batches = transform, []

    def __call__(self, images):
        self.batches.append(images.detach().clone())
        return self.transform(images)

    def again(self, images):
        """The same by :func:`transformed`, image by image; each draw of several parameters is of one batch."""
        name, parameters = self.transform.func.__name__, self.transform.keywords
        if all(value.numel() == 1 for value in flat(parameters.values())):
            return torch.stack([transformed(image, name, **numbers(parameters, 0)) for image in images])
        (batch,) = self.batches
        order = torch.cdist(images.detach().flatten(1), batch.double().flatten(1)).argmin(dim=1).tolist()
        assert sorted(order) == list(range(len(batch)))
        return torch.stack(
            [transformed(image, name, **numbers(parameters, at)) for image, at in zip(images, order, strict=True)]
        )


def flat(values):
    return [part for value in values for part in (value if isinstance(value, tuple) else (value,))]


def numbers(parameters, at):
    """Those of one image."""

    def of(value):
        return tuple(map(of, value)) if isinstance(value, tuple) else value[at if len(value) > 1 else 0].item()

    return {name: of(value) for name, value in parameters.items()}


def transformed(image, name, **by):
    """One image, in its own precision."""
    _, height, width = image.shape
    y0, x0 = (height - 1) / 2, (width - 1) / 2
    if name == "color":
        image = image + by["brightness"]
        gray = sum(image) / len(image)
        image = torch.stack([gray + by["saturation"] * (channel - gray) for channel in image])
        mean = image.sum() / image.numel()
        return mean + by["contrast"] * (image - mean)
    if name == "cut_out":
        (top, bottom), (left, right) = by["rows"], by["columns"]
        kept = [[not (top <= y < bottom and left <= x < right) for x in range(width)] for y in range(height)]
        return image * torch.tensor(kept)
    if name == "mirror":
        return image[:, :, [width - 1 - x if by["chosen"] else x for x in range(width)]]
    if name == "shift":
        return sampled(image, lambda y, x: (y - by["down"], x - by["right"]))
    if name == "scale":
        return sampled(image, lambda y, x: (y0 + (y - y0) / by["vertical"], x0 + (x - x0) / by["horizontal"]))
    assert name == "rotate"
    turn = complex(math.cos(math.radians(by["degrees"])), math.sin(math.radians(by["degrees"])))

    def unturned(y, x):  # rows count downwards: what looks anticlockwise is clockwise here
        found = complex(x - x0, y - y0) * turn
        return y0 + found.imag, x0 + found.real

    return sampled(image, unturned)


def sampled(image, source):
    """Each pixel is the bilinear value where ``source`` says that it comes from, with zeros all around the image."""
    _, height, width = image.shape
    weights = torch.zeros(height, width, height, width, dtype=image.dtype)
    for y, x in np.ndindex(height, width):
        down, right = source(y, x)
        for row, column in np.ndindex(height, width):
            weights[y, x, row, column] = max(0, 1 - abs(row - down)) * max(0, 1 - abs(column - right))
    return torch.einsum("yxrc,krc->kyx", weights, image)


@pytest.mark.parametrize("augmentation", [*AUGMENTATIONS, "-".join(AUGMENTATIONS)])
def test_equals_a_second_implementation(monkeypatch, augmentation):
    draws, first_weights = [], []

    def draw(*arguments, count):
        draws.append(Drawn(draw_transform(*arguments, count=count)))
        return draws[-1]

    class Networks(PaperNetworks):
        def build(self, name):
            network = super().build(name)
            first_weights.append(copy.deepcopy(network.state_dict()))
            return network

    monkeypatch.setattr(outer_loop, "draw_transform", draw)
    monkeypatch.setattr("nasproxy.condensation.networks.PaperNetworks", Networks)
    dataset = tiny_dataset((4, 3), size=(6, 8), channels=3)
    recipe = replace(
        RECIPE, iterations=1, image_learning_rate=3.0, network_learning_rate=0.1, augmentation=augmentation
    )
    first = replace(recipe, image_learning_rate=STILL).make(dataset, seed=0, **WHERE).images
    draws.clear()
    first_weights.clear()
    made = recipe.make(dataset, seed=0, **WHERE)
    again = iter([draw.again for draw in draws])
    images, losses = algorithm_1(dataset, recipe, first, first_weights, again)
    assert next(again, None) is None  # no draw is left
    assert [len(draw.batches) for draw in draws] == [2, 2, 1, 1, 1, 2, 2]
    assert (images - first).abs().max() > 0.05  # the comparison is of something that moved
    torch.testing.assert_close(made.images.double(), images, rtol=0, atol=2e-5)
    assert made.losses == pytest.approx(losses, rel=1e-5)


@pytest.mark.parametrize("kind", ["color", "rotate", "cutout"])
def test_the_gradient_flows_through_the_augmentation(kind):
    torch.manual_seed(0)
    network = ConvNet(1, 2, (4, 4), width=3, depth=1, activation="sigmoid").double()
    transform = draw_transform((kind,), (4, 4), torch.Generator().manual_seed(2))
    real, images = torch.randn(4, 1, 4, 4).double(), torch.randn(2, 1, 4, 4).double()

    def loss(pixels):
        return matching_loss(
            network, transform(real), transform(pixels), 1, distance="layerwise-cosine", precision="float32"
        )

    assert torch.autograd.gradcheck(loss, images.requires_grad_(), atol=1e-5)


def test_the_seed_decides_and_every_channel_and_class_size_goes():
    for channels, ipc in ((1, 1), (3, 3)):
        dataset = tiny_dataset((7, 5, 4), channels=channels)
        one, again, other = (replace(RECIPE, ipc=ipc).make(dataset, seed=seed, **WHERE) for seed in (0, 0, 1))
        assert one.images.shape == (3 * ipc, channels, 8, 8)
        assert torch.equal(one.images, again.images)
        assert not torch.equal(one.images, other.images)


def test_flips_follow_the_dataset():
    dataset = tiny_dataset()
    assert "flip" in RECIPE.augmentations(dataset)
    assert "flip" not in RECIPE.augmentations(replace(dataset, name="digits"))


def test_presets_are_those_of_gradient_matching_from_real_images():
    for name in ("quick", "paper"):
        ours, plain = SiameseRecipe.preset(name, 10), MatchingRecipe.preset(name, 10)
        assert ours.initial == "real"
        assert (ours.iterations, ours.matching_steps, ours.inner_epochs, ours.real_batch) == (
            plain.iterations, plain.matching_steps, plain.inner_epochs, plain.real_batch
        )  # fmt: skip


def test_an_unknown_augmentation_is_refused():
    with pytest.raises(InputError, match="No augmentation is called 'colour'"):
        replace(RECIPE, augmentation="colour-crop")
