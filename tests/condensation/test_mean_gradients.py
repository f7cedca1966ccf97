"""The gradients that are written out, and those in chunks, against automatic differentiation of whole batches."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny import tiny_dataset
from torch import nn

from nasproxy.condensation import convnet_block
from nasproxy.condensation.chunks import chunk_size
from nasproxy.condensation.convnet_gradients import ConvNetGradients, has_written_gradients
from nasproxy.condensation.distribution_matching import DistributionRecipe
from nasproxy.condensation.gradient_matching import matching_loss
from nasproxy.condensation.mean_gradients import mean_gradients
from nasproxy.condensation.recipe import MatchingRecipe
from nasproxy.networks import build
from nasproxy.networks.convnet import ConvNet

CPU = torch.device("cpu")


def convnet(size, channels, dtype=torch.float64, **settings):
    """With parameters away from their initial ones and zeros."""
    torch.manual_seed(0)
    network = ConvNet(channels, 3, size, **{"width": 5, "depth": 2, **settings}).to(dtype)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network


def batch(size, channels, number=5, dtype=torch.float64):
    return torch.randn(number, channels, *size, dtype=dtype), torch.arange(number) % 3


def whole(network, images, labels):
    return torch.autograd.grad(F.cross_entropy(network(images), labels), list(network.parameters()))


@pytest.mark.parametrize(
    ("size", "channels", "depth"), [((8, 8), 3, 2), ((28, 28), 1, 3), ((8, 20), 1, 2), ((4, 4), 2, 1)]
)
def test_the_written_gradients_are_the_convnets(size, channels, depth):
    network = convnet(size, channels, depth=depth)
    images, labels = batch(size, channels)
    assert has_written_gradients(network, images)
    with torch.no_grad():
        found = ConvNetGradients(network).gradients(images, labels)
    for ours, theirs in zip(found, whole(network, images, labels), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize(("precision", "off"), [("float32", 1e-5), ("float32-direct", 1e-6), ("bfloat16", 0.1)])
@pytest.mark.parametrize("chunk", [0, 1, 2, 99])
def test_mean_gradients_are_exact_to_millionths_in_float32_and_to_percents_in_bfloat16(precision, off, chunk):
    network = convnet((16, 16), 3, dtype=torch.float32, width=16)
    images, labels = batch((16, 16), 3, dtype=torch.float32)
    exact = torch.cat([g.flatten() for g in whole(network.double(), images.double(), labels)])
    parameters = list(network.float().parameters())
    slopes = mean_gradients(network, parameters, images, labels, chunk=chunk, precision=precision)
    found = torch.cat([slope.flatten() for slope in slopes])
    assert found.dtype == torch.float32
    assert float((found - exact).norm() / exact.norm()) < off


def test_small_maps_of_many_channels_are_as_exact_and_direct_ones_are_all_torchs(monkeypatch):
    network = convnet((8, 8), 3, dtype=torch.float32, width=128, depth=3)
    images, labels = batch((8, 8), 3, dtype=torch.float32)
    exact = torch.cat([g.flatten() for g in whole(network.double(), images.double(), labels)])
    network.float()
    calls = []
    for name in ("lowered_pixels", "weight_gradient"):
        real = getattr(convnet_block, name)
        monkeypatch.setattr(convnet_block, name, lambda *a, name=name, real=real: (calls.append(name), real(*a))[1])
    with torch.no_grad():
        written = ConvNetGradients(network).gradients(images, labels)
    assert float((torch.cat([g.flatten() for g in written]) - exact).norm() / exact.norm()) < 1e-5
    lowered = ["lowered_pixels", "weight_gradient"]
    # One first convolution; of the maps of 4×4 and 2×2 the smaller.
    assert sorted(calls) == lowered
    for precision, expected in (("float32", lowered), ("float32-direct", [])):
        calls.clear()
        matching_loss(network, images, images, 1, distance="layerwise-cosine", precision=precision)
        assert sorted(calls) == expected


@pytest.mark.parametrize(
    ("size", "settings"),
    [
        ((8, 8), {"norm": "batch"}),
        ((8, 8), {"norm": "group", "width": 8}),
        ((8, 8), {"activation": "sigmoid"}),
        ((8, 8), {"pooling": "max"}),
        ((8, 6), {}),
    ],
)
def test_other_networks_and_odd_sizes_are_left_to_automatic_differentiation(size, settings):
    network = convnet(size, 1, **settings)
    images, labels = batch(size, 1)
    assert not has_written_gradients(network, images)
    network.eval()
    parameters = list(network.parameters())
    found = mean_gradients(network, parameters, images, labels, chunk=2, precision="float32")
    for ours, theirs in zip(found, whole(network, images, labels), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_a_network_of_ones_own_is_not_taken_for_it():
    class Mine(ConvNet):
        def forward(self, images):
            return 2 * super().forward(images)

    assert not has_written_gradients(Mine(1, 3, (8, 8), depth=1), torch.zeros(1, 1, 8, 8))
    assert not has_written_gradients(nn.Linear(2, 2), torch.zeros(1, 1, 8, 8))


class Counting(nn.Module):
    """Remembers the sizes of its batches."""

    def __init__(self, norm):
        super().__init__()
        self.inner, self.idle, self.seen = convnet((8, 8), 1, norm=norm), nn.Parameter(torch.ones(2, 2)), []

    def forward(self, images):
        self.seen.append(len(images))
        return self.inner(images)


@pytest.mark.parametrize(
    ("norm", "training", "seen"),
    [("batch", True, [5]), ("batch", False, [2, 2, 1]), ("layer", True, [2, 2, 1])],
)
def test_a_network_sees_chunks_unless_batch_normalisation_would_tell(norm, training, seen):
    network = Counting(norm).train(training)
    images, labels = batch((8, 8), 1)
    parameters = [*network.inner.parameters(), network.idle]
    found = mean_gradients(network, parameters, images, labels, chunk=2, precision="float32")
    assert network.seen == seen
    assert found[-1] is None
    for ours, theirs in zip(found[:-1], whole(network.inner, images, labels), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("chunk", [0, 2])
def test_batch_normalisation_without_moving_averages_sees_a_whole_batch_in_evaluation_mode(chunk):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 30 * 30, 3)).eval()
    images, labels = batch((32, 32), 1, number=40, dtype=torch.float32)  # more than a CPU takes at a time
    assert chunk_size(0, images) < 40
    found = mean_gradients(network, list(network.parameters()), images, labels, chunk=chunk, precision="float32")
    for ours, theirs in zip(found, whole(network, images, labels), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_only_what_is_asked_for_is_given():
    network = convnet((8, 8), 1)
    images, labels = batch((8, 8), 1)
    wanted = [network.classifier.weight, network.features[0].weight]
    found = mean_gradients(network, wanted, images, labels, chunk=0, precision="float32")
    for ours, theirs in zip(found, torch.autograd.grad(F.cross_entropy(network(images), labels), wanted), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "recipe",
    [
        MatchingRecipe(ipc=2, iterations=1, matching_steps=2, inner_epochs=2, width=6, depth=2, network_batch=3),
        DistributionRecipe(ipc=2, iterations=2, width=6, depth=2),
    ],
)
def test_images_are_those_of_automatic_differentiation_whatever_the_chunk(recipe, monkeypatch):
    dataset = tiny_dataset((9, 6), channels=3)

    def made(chunk):
        changed = replace(recipe, chunk=chunk)
        return changed.make(dataset, seed=3, device=CPU, precision="float32")

    by_chunk = [made(chunk) for chunk in (0, 4)]
    monkeypatch.setitem(build._CLASSES, "convnet", type("Other", (ConvNet,), {}))
    expected = made(0)
    for found in by_chunk:
        torch.testing.assert_close(found.images, expected.images, rtol=0, atol=1e-4)
        assert found.losses == pytest.approx(expected.losses, rel=1e-4)


def test_the_chunk_that_is_chosen():
    assert [chunk_size(0, torch.zeros(600, 1, n, n)) for n in (16, 32, 64, 400)] == [120, 32, 8, 1]
    assert [chunk_size(0, torch.zeros(n, 1, 32, 32)) for n in (1, 32, 70, 256)] == [1, 32, 24, 32]
    assert chunk_size(7, torch.zeros(300, 1, 32, 32)) == 7
    assert chunk_size(0, torch.zeros(300, 3, 32, 32, device="meta")) == 300
