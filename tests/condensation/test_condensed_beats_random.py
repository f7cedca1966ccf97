"""What condensation is for: one synthetic image of each digit teaches more than one real image."""

from __future__ import annotations

import statistics

import pytest
import torch

from nasproxy.condensation.recipe import MatchingRecipe
from nasproxy.datasets.load import load_dataset
from nasproxy.datasets.per_class import draw_per_class
from nasproxy.networks.convnet import ConvNet
from nasproxy.training.recipe import TrainingRecipe
from nasproxy.training.train import Images, train

SHAPE = {"width": 16, "depth": 2}


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def accuracy(digits, images, labels, seed):
    torch.manual_seed(seed)
    network = ConvNet(digits.channels, digits.num_classes, digits.image_size, **SHAPE)
    test = Images(digits.normalisation.apply(digits.test.images), digits.test.labels)
    recipe = TrainingRecipe(epochs=60, learning_rate=0.05)
    return train(network, Images(images, labels), recipe, test, seed=seed, precision="float32")[-1].accuracy


def test_one_condensed_image_a_digit_beats_one_random_image(digits):
    recipe = MatchingRecipe(
        ipc=1, iterations=30, matching_steps=1, image_learning_rate=0.2, real_batch=32, initial="real", **SHAPE
    )
    random, condensed = [], []
    for seed in range(2):
        made = recipe.make(digits, seed=seed, device=torch.device("cpu"), precision="float32")
        condensed.append(accuracy(digits, made.images, made.labels, seed))
        # The very images that the condensation began with.
        positions = draw_per_class(digits, 1, torch.Generator().manual_seed(seed))
        images = digits.normalisation.apply(digits.train.images[positions])
        random.append(accuracy(digits, images, digits.train.labels[positions], seed))
    assert statistics.mean(condensed) > statistics.mean(random) + 0.1
