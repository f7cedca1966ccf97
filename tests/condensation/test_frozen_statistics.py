"""Batch normalisation sees the statistics of real images, and is left as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nasproxy.condensation.frozen_statistics import frozen_statistics


def generator():
    return torch.Generator().manual_seed(0)


def test_the_statistics_are_those_of_the_real_images_and_hold_still():
    real = 3 + 2 * torch.randn(20, 2, 4, 4, generator=generator())
    by_class = [torch.arange(0, 12), torch.arange(12, 20)]  # all are drawn: neither has more than 16
    network = nn.Sequential(nn.BatchNorm2d(2))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    synthetic = torch.randn(3, 2, 4, 4)
    with frozen_statistics(network, real, by_class, generator(), "float32"):
        assert not network.training
        seen = [network(synthetic), network(10 * synthetic)]
    mean, variance = real.mean(dim=(0, 2, 3)), real.var(dim=(0, 2, 3))
    for images, result in zip((synthetic, 10 * synthetic), seen, strict=True):
        expected = (images - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
    assert network.training
    assert network[0].momentum == 0.1
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_sixteen_images_of_each_class_are_shown():
    # The value of every image is its class, so that the mean tells their proportions.
    real = torch.cat([torch.zeros(100, 1, 2, 2), torch.ones(30, 1, 2, 2), torch.full((8, 1, 2, 2), 5.0)])
    by_class = [torch.arange(0, 100), torch.arange(100, 130), torch.arange(130, 138)]
    network = nn.Sequential(nn.BatchNorm2d(1))
    with frozen_statistics(network, real, by_class, generator(), "float32"):
        assert float(network[0].running_mean) == pytest.approx((16 + 8 * 5) / (16 + 16 + 8))


def test_a_network_without_it_draws_nothing():
    source = generator()
    before = source.get_state()
    network = nn.Sequential(nn.Dropout(0.5))
    images = torch.ones(4, 1, 2, 2)
    with frozen_statistics(network, images, [torch.arange(4)], source, "float32"):
        assert torch.equal(network(images), images)
    assert network.training
    assert torch.equal(source.get_state(), before)
