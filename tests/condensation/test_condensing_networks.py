"""Images condensed with each network of the paper: by name, seeded, in the variant for condensing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import tiny_dataset
from torch import nn

from nasproxy.condensation.distribution_matching import DistributionRecipe
from nasproxy.condensation.networks import check_networks, fresh_networks
from nasproxy.condensation.recipe import DISTANCES, MatchingRecipe
from nasproxy.condensation.siamese import SiameseRecipe
from nasproxy.errors import InputError
from nasproxy.networks.names import NETWORKS

WHERE = {"device": torch.device("cpu"), "precision": "float32"}
DC = MatchingRecipe(ipc=1, iterations=1, matching_steps=2, inner_epochs=1, real_batch=3, width=4)


def dataset_for(name, channels=1):
    side = 32 if name == "vgg11" else 16
    return tiny_dataset((4, 3), size=(side, side), channels=channels)


def first_network(dataset, recipe):
    with fresh_networks(dataset, recipe, torch.Generator().manual_seed(0), torch.device("cpu")).fresh() as network:
        return network


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_matched_in_each_network_and_the_seed_decides(name):
    dataset, recipe = dataset_for(name), replace(DC, network=name)
    made, again = (recipe.make(dataset, seed=0, **WHERE) for _ in range(2))
    assert torch.equal(made.images, again.images)
    other = replace(recipe, network="mlp" if name != "mlp" else "lenet", image_learning_rate=1e-30)
    unmoved = other.make(dataset, seed=0, **WHERE)
    moved = (made.images - unmoved.images).flatten(1).norm(dim=1)
    assert moved.isfinite().all()
    assert (moved > 0).all()
    assert made.losses != unmoved.losses


@pytest.mark.parametrize("name", ["mlp", "lenet", "resnet18"])
def test_distributions_are_matched_in_other_networks_too(name):
    recipe = DistributionRecipe(ipc=1, iterations=1, network=name, real_batch=3, augmentation="none")
    dataset = dataset_for(name, channels=3)
    made = recipe.make(dataset, seed=0, **WHERE)
    start = replace(recipe, image_learning_rate=1e-30).make(dataset, seed=0, **WHERE).images
    assert ((made.images - start).flatten(1).norm(dim=1) > 0).all()


def test_the_network_is_the_variant_for_condensing():
    network = first_network(dataset_for("resnet18"), replace(DC, network="resnet18"))
    kinds = [type(module) for module in network.modules()]
    assert nn.BatchNorm2d in kinds
    assert kinds.count(nn.AvgPool2d) == 6


def test_the_convnet_is_the_one_described():
    recipe = replace(DC, width=8, depth=2, norm="batch", activation="sigmoid", pooling="max")
    kinds = [type(layer) for layer in first_network(dataset_for("convnet"), recipe).features]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.Sigmoid, nn.MaxPool2d] * 2
    with pytest.raises(InputError, match="Did you mean instance"):
        replace(recipe, norm="instanse").make(dataset_for("convnet"), seed=0, **WHERE)


def test_images_too_small_for_the_network_are_an_error():
    with pytest.raises(InputError, match="16×16 pixels is too small for VGG-11, which takes 32×32 or more"):
        replace(DC, network="vgg11").make(dataset_for("lenet"), seed=0, **WHERE)
    before = torch.get_rng_state()
    with pytest.raises(InputError, match="too small for VGG-11"):
        check_networks(dataset_for("lenet"), replace(DC, network="vgg11"))
    check_networks(dataset_for("vgg11"), replace(DC, network="vgg11"))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("recipe", [DC, SiameseRecipe(ipc=1), DistributionRecipe(ipc=1)], ids=["dc", "dsa", "dm"])
def test_only_gradient_matching_by_the_mlp_has_a_rate_of_its_own(recipe):
    for name in NETWORKS:
        suited = replace(recipe, network=name).suited_to_network()
        rate = 0.01 if name == "mlp" and isinstance(recipe, MatchingRecipe) else recipe.image_learning_rate
        assert suited == replace(recipe, network=name, image_learning_rate=rate)


def test_the_flat_distances_have_another_in_the_mlp():
    rates = [replace(DC, network="mlp", distance=name).suited_to_network().image_learning_rate for name in DISTANCES]
    assert rates == [0.01, 0.001, 0.001]
