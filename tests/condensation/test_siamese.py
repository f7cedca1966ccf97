"""Siamese augmentation: the same transformation of real and synthetic images, in every matching step."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from algorithm_1 import algorithm_1
from plain_augmentation import Augmented
from tiny import tiny_dataset

from nasproxy.condensation.gradient_matching import matching_loss
from nasproxy.condensation.recipe import MatchingRecipe
from nasproxy.condensation.siamese import SiameseRecipe
from nasproxy.errors import InputError
from nasproxy.networks import build
from nasproxy.networks.convnet import ConvNet
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


@pytest.mark.parametrize("augmentation", ["color", "crop", "cutout", "flip", "scale", "rotate", "auto"])
def test_equals_a_second_implementation_of_loss_and_augmentation(monkeypatch, first_weights, augmentation):
    dataset = tiny_dataset((5, 4), channels=2, size=(6, 6))
    augment = Augmented(monkeypatch)
    recipe = replace(RECIPE, augmentation=augmentation, network_learning_rate=0.1)
    first = replace(recipe, image_learning_rate=STILL).make(dataset, seed=0, **WHERE).images
    first_weights.clear()
    augment.restart()
    made = recipe.make(dataset, seed=0, **WHERE)
    images, losses = algorithm_1(dataset, recipe, first, first_weights, augment)
    assert (images - first).abs().max() > 0.01  # the comparison is of something that moved
    torch.testing.assert_close(made.images.double(), images, rtol=0, atol=1e-5)
    assert made.losses == pytest.approx(losses, rel=1e-5)


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
