"""Batch normalisation sees the statistics of real images, which hold still."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny import tiny_dataset
from torch import nn

from nasproxy.condensation.frozen_statistics import frozen_statistics
from nasproxy.condensation.outer_loop import Material
from nasproxy.condensation.recipe import MatchingRecipe


def generator():
    return torch.Generator().manual_seed(0)


def test_the_statistics_are_moving_averages_that_real_images_have_gone_into_and_hold_still():
    real = 3 + 2 * torch.randn(20, 2, 4, 4, generator=generator())
    by_class = [torch.arange(0, 12), torch.arange(12, 20)]  # all are drawn: neither has more than 16
    network = nn.Sequential(nn.BatchNorm2d(2))
    shown = copy.deepcopy(network)
    with torch.no_grad():
        shown(real)
    synthetic = torch.randn(3, 2, 4, 4)
    with frozen_statistics(network, real, by_class, generator(), "float32"):
        assert not network.training
        seen = [network(synthetic), network(10 * synthetic)]
    mean, variance = shown[0].running_mean, shown[0].running_var  # torch's own pass in training mode
    torch.testing.assert_close(mean, 0.1 * real.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(variance, 0.9 + 0.1 * real.var(dim=(0, 2, 3)))
    for images, result in zip((synthetic, 10 * synthetic), seen, strict=True):
        expected = (images - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
    assert network.training
    assert network[0].momentum == 0.1
    torch.testing.assert_close((network[0].running_mean, network[0].running_var), (mean, variance))


def test_moving_averages_go_further_with_each_step():
    real = 3 + torch.randn(20, 2, 4, 4, generator=generator())
    network, shown = (nn.Sequential(nn.BatchNorm2d(2)) for _ in range(2))
    for _ in range(3):
        with frozen_statistics(network, real, [torch.arange(16)], generator(), "float32"):
            pass
        shown(real[:16])
    torch.testing.assert_close(network[0].running_mean, shown[0].running_mean)
    torch.testing.assert_close(network[0].running_var, shown[0].running_var)


def test_a_batch_norm_that_keeps_no_averages_goes_by_its_batch():
    network = nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False))
    images = torch.randn(4, 1, 2, 2)
    with frozen_statistics(network, images, [torch.arange(4)], generator(), "float32"):
        torch.testing.assert_close(network(images).mean(), torch.tensor(0.0), atol=1e-5, rtol=0)


def test_sixteen_images_of_each_class_are_shown():
    # The value of every image is its class, so that the mean tells their proportions.
    real = torch.cat([torch.zeros(100, 1, 2, 2), torch.ones(30, 1, 2, 2), torch.full((8, 1, 2, 2), 5.0)])
    by_class = [torch.arange(0, 100), torch.arange(100, 130), torch.arange(130, 138)]
    network = nn.Sequential(nn.BatchNorm2d(1))
    with frozen_statistics(network, real, by_class, generator(), "float32"):
        assert float(network[0].running_mean) == pytest.approx(0.1 * (16 + 8 * 5) / (16 + 16 + 8))


def test_a_network_without_it_draws_nothing():
    source = generator()
    before = source.get_state()
    network = nn.Sequential(nn.Dropout(0.5))
    images = torch.ones(4, 1, 2, 2)
    with frozen_statistics(network, images, [torch.arange(4)], source, "float32"):
        assert torch.equal(network(images), images)
    assert network.training
    assert torch.equal(source.get_state(), before)


def test_gradients_go_by_moving_averages():
    real = 3 + 2 * torch.randn(12, 2, 4, 4, generator=generator())
    by_class = [torch.arange(0, 7), torch.arange(7, 12)]  # all are drawn: neither has more than 16
    network = nn.Sequential(nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(32, 2))
    images = torch.randn(2, 2, 4, 4, generator=generator()).requires_grad_()
    material = Material(real, by_class, images, torch.arange(2), (), generator(), "float32")
    recipe = MatchingRecipe(ipc=1, iterations=1, matching_steps=1)
    recipe.iteration(tiny_dataset((7, 5)))(network, material, torch.optim.SGD([images], lr=0.1))
    torch.testing.assert_close(network[0].running_mean, 0.1 * real.mean(dim=(0, 2, 3)))
