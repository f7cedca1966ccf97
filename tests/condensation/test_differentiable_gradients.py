"""The derivative of the written gradients, which moves the images: against automatic and numerical differentiation."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F

from nasproxy.condensation import convnet_gradients, gradient_matching
from nasproxy.condensation.convnet_gradients import differentiable_gradients
from nasproxy.condensation.gradient_matching import matching_loss
from nasproxy.condensation.recipe import DISTANCES
from nasproxy.networks.convnet import ConvNet
from nasproxy.networks.norms import InstanceNorm

CLASS = torch.tensor(2)


def convnet(channels, size, depth=2, width=5, dtype=torch.float64):
    """With parameters away from their initial ones and zeros, and an eps that shows."""
    torch.manual_seed(0)
    network = ConvNet(channels, 4, size, width=width, depth=depth).to(dtype)
    for layer in network.features:
        if isinstance(layer, InstanceNorm):
            layer.eps = 0.1
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network


def slope_of_matching(network, real, synthetic, distance, precision="float32"):
    pixels = synthetic.clone().requires_grad_()
    loss = matching_loss(network, real, pixels, CLASS, distance=distance, precision=precision)
    return loss.detach(), torch.autograd.grad(loss, pixels)[0]


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(
    ("size", "channels", "depth"), [((8, 8), 3, 2), ((28, 28), 1, 3), ((8, 20), 1, 2), ((4, 4), 2, 1)]
)
def test_matching_moves_images_as_by_automatic_differentiation(distance, size, channels, depth, monkeypatch):
    network = convnet(channels, size, depth)
    real, synthetic = torch.randn(5, channels, *size).double(), torch.randn(3, channels, *size).double()
    loss, slope = slope_of_matching(network, real, synthetic, distance)
    monkeypatch.setattr(gradient_matching, "has_written_gradients", lambda *_: False)
    expected_loss, expected = slope_of_matching(network, real, synthetic, distance)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(slope, expected, rtol=1e-7, atol=1e-10 * float(expected.abs().max()))


def test_every_gradient_has_the_derivative_that_differences_show():
    network = convnet(2, (4, 4), width=2)
    images = torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: differentiable_gradients(network, x, CLASS), (images,))


@pytest.mark.parametrize("frozen", ["features.0.weight", "features.4.weight", "classifier.weight"])
def test_frozen_parameters_take_no_part(frozen, monkeypatch):
    network = convnet(1, (8, 8))
    network.get_parameter(frozen).requires_grad_(False)
    real, synthetic = torch.randn(5, 1, 8, 8).double(), torch.randn(3, 1, 8, 8).double()
    _, slope = slope_of_matching(network, real, synthetic, "squared-euclidean")
    monkeypatch.setattr(gradient_matching, "has_written_gradients", lambda *_: False)
    _, expected = slope_of_matching(network, real, synthetic, "squared-euclidean")
    torch.testing.assert_close(slope, expected, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("precision", ["bfloat16", "bfloat16-direct"])
def test_synthetic_images_are_never_seen_in_bfloat16(precision, monkeypatch):
    network, made = convnet(1, (8, 8), width=16, dtype=torch.float32), []
    real, synthetic = torch.randn(5, 1, 8, 8), torch.randn(3, 1, 8, 8)

    class Seen(convnet_gradients.ConvNetGradients):
        def gradients(self, *arguments):
            found = super().gradients(*arguments)
            made.extend(gradient.dtype for gradient in found)
            return found

    def see(_, images, maps):  # by torch, where a precision is direct
        if images[0].requires_grad:
            made.append(maps.dtype)

    network.features[0].register_forward_hook(see)
    monkeypatch.setattr(convnet_gradients, "ConvNetGradients", Seen)
    _, slope = slope_of_matching(network, real, synthetic, "layerwise-cosine", precision)
    assert set(made) == {torch.float32}
    with monkeypatch.context() as patched:  # of the same real images' gradients, whose derivative is that of float32
        patched.setattr(gradient_matching, "has_written_gradients", lambda *_: False)
        _, expected = slope_of_matching(network, real, synthetic, "layerwise-cosine", precision)
    torch.testing.assert_close(slope, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_what_was_differentiated_is_let_go_at_once(monkeypatch):
    """Or memory would grow until Python looks for cycles, and each step take fresh pages: three times as long."""
    network, kept = convnet(1, (8, 8)), []
    real_init = convnet_gradients.ConvNetGradients.__init__

    def remember(self, *arguments, **settings):
        real_init(self, *arguments, **settings)
        kept.append(weakref.ref(self))

    monkeypatch.setattr(convnet_gradients.ConvNetGradients, "__init__", remember)
    gc.collect()
    gc.disable()
    try:
        images = torch.randn(3, 1, 8, 8, dtype=torch.float64, requires_grad=True)
        gradients = differentiable_gradients(network, images, CLASS)
        sum(gradient.square().sum() for gradient in gradients).backward()
        assert kept[0]() is not None
        del gradients
        assert kept[0]() is None
    finally:
        gc.enable()


def test_values_are_those_of_automatic_differentiation():
    network, images = convnet(3, (8, 8)), torch.randn(4, 3, 8, 8, dtype=torch.float64)
    found = differentiable_gradients(network, images, CLASS)
    loss = F.cross_entropy(network(images), CLASS.repeat(4))
    for ours, theirs in zip(found, torch.autograd.grad(loss, list(network.parameters())), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12)


def test_a_third_derivative_is_refused():
    images = torch.randn(2, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    gradients = differentiable_gradients(convnet(1, (8, 8)), images, CLASS)
    loss = sum(gradient.square().sum() for gradient in gradients)
    (slope,) = torch.autograd.grad(loss, images, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(slope.sum(), images)


def test_a_network_in_another_format_is_torchs():
    network, images = convnet(1, (8, 8)), torch.randn(2, 1, 8, 8)
    assert convnet_gradients.has_written_gradients(network, images)
    assert not convnet_gradients.has_written_gradients(network.bfloat16(), images)
