"""Blocks of the ConvNet by the kernels: what layers compute one by one, and the layers themselves where they must."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from nasproxy.kernels.fused import fused_maps
from nasproxy.kernels.library import Kernels, kernels
from nasproxy.networks.block import after_convolution
from nasproxy.networks.convnet import ACTIVATIONS, NORMS, POOLINGS, ConvNet
from nasproxy.networks.norms import InstanceNorm
from nasproxy.training.precision import autocast

if kernels() is None:
    pytest.skip("nasproxy was installed without a C compiler", allow_module_level=True)

CPU = torch.device("cpu")


@pytest.fixture
def calls(monkeypatch):
    """The names of the kernels that are called."""
    found, original = [], Kernels.__call__
    monkeypatch.setattr(
        Kernels, "__call__", lambda self, name, *rest: (found.append(name), original(self, name, *rest))
    )
    return found


def network(**settings):
    torch.manual_seed(0)
    model = ConvNet(2, 3, (9, 6), width=8, depth=2, **settings)
    with torch.no_grad():  # affine maps are born as ones and zeros, which would hide their absence
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def images():
    return torch.randn(4, 2, 9, 6, generator=torch.Generator().manual_seed(1))


def passes(model):
    """Logits in training, gradients, logits in evaluation after it, and all that the model holds."""
    model.train()
    logits = model(images())
    slopes = torch.autograd.grad(logits.square().sum(), list(model.parameters()))
    with torch.no_grad():
        return [logits.detach(), *slopes, model.eval()(images()), *model.state_dict().values()]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_network_computes_the_same_within_the_context(norm, activation, pooling, calls):
    model = network(norm=norm, activation=activation, pooling=pooling)
    expected = passes(copy.deepcopy(model))
    assert not calls
    with fused_maps():
        found = passes(model)
    assert bool(calls) == ((norm, pooling) != ("none", "none"))  # an activation alone is torch's
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", ["batch", "layer", "instance", "group"])
def test_a_network_computes_the_same_in_bfloat16_but_for_rounding(norm, calls):
    model = network(norm=norm, pooling="max")
    expected = model(images())
    with autocast("bfloat16", CPU):
        found = model(images())
    assert calls.count("forward") == 2
    assert (found.float() - expected).norm() <= 0.02 * expected.norm()


def test_precisions_that_leave_all_to_torch_leave_this_too(calls):
    for precision, taken in (("float32-direct", 0), ("bfloat16-direct", 0), ("float32", 2), ("bfloat16", 4)):
        with autocast(precision, CPU):
            network()(images())
        assert calls.count("forward") == taken


@pytest.mark.parametrize(
    "changed",
    [
        {"norm": nn.BatchNorm2d(4, affine=False)},
        {"norm": nn.BatchNorm2d(4, track_running_stats=False)},
        {"norm": nn.BatchNorm2d(4, momentum=None)},
        {"norm": nn.InstanceNorm2d(4)},
        {"norm": nn.LayerNorm([4, 6, 6])},
        {"activation": nn.LeakyReLU(0.1)},
        {"activation": nn.GELU()},
        {"pooling": nn.MaxPool2d(3)},
        {"pooling": nn.MaxPool2d(2, stride=1)},
        {"pooling": nn.MaxPool2d(2, padding=1)},
        {"pooling": nn.MaxPool2d(2, dilation=2)},
        {"pooling": nn.AvgPool2d(2, ceil_mode=True)},
        {"pooling": nn.AvgPool2d(2, divisor_override=3)},
        {"pooling": nn.AdaptiveAvgPool2d(1)},
    ],
    ids=lambda changed: str(*changed.values()),
)
def test_other_layers_are_left_to_torch(changed, calls):
    torch.manual_seed(0)
    layers = {"norm": nn.BatchNorm2d(4), "activation": nn.ReLU(), "pooling": nn.MaxPool2d(2)} | changed
    maps = torch.randn(3, 4, 6, 6)
    with fused_maps():
        found = after_convolution(maps, *layers.values())
    assert not calls
    assert torch.equal(found, nn.Sequential(*copy.deepcopy(layers).values())(maps))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_networks_of_another_format_are_left_to_torch(dtype, calls):
    model = network().to(dtype)
    with fused_maps():
        assert model(images().to(dtype)).dtype == dtype
    assert not calls


@pytest.mark.parametrize("watched", ["features", "features.1", "features.2", "features.7"])
@pytest.mark.parametrize(
    "watch", ["forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook", "forward"]
)
def test_what_is_looked_at_is_left_to_torch(watched, watch, calls):
    model, seen = network(), []
    layer = model.get_submodule(watched)
    if watch == "forward":
        original = layer.forward
        layer.forward = lambda given: (seen.append(given), original(given))[1]
    else:
        getattr(layer, f"register_{watch}")(lambda *given: seen.append(given) and None)
    with fused_maps():
        model(images().requires_grad_()).sum().backward()
    assert len(seen) == 1
    assert calls.count("forward") == (0 if watched == "features" else 1)  # of the other block


def test_hooks_on_all_layers_see_all(calls):
    seen = []
    with nn.modules.module.register_module_forward_hook(lambda layer, *_: seen.append(layer)), fused_maps():
        model = network()
        model(images())
    assert set(model.features) < set(seen)
    assert not calls


@pytest.mark.slow  # torch's checkpoint imports its compiler
def test_a_checkpointed_network_is_computed_anew():
    model, found = network(norm="batch"), []
    for call in (model, lambda x: checkpoint(model, x, use_reentrant=False)):
        with autocast("float32", CPU):
            loss = call(images()).square().sum()
        found.append(torch.autograd.grad(loss, list(model.parameters())))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_without_a_team_of_threads_torch_computes(monkeypatch, calls):
    monkeypatch.setattr("nasproxy.kernels.library.team", lambda: None)
    for threads, taken in ((2, 0), (1, 2)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        with fused_maps():
            network()(images())
        assert calls.count("forward") == taken


class Marked(torch.Tensor):
    """A tensor of another class."""


def test_other_tensors_and_mixed_formats_are_left_to_torch(calls):
    with fused_maps(), torch.no_grad():
        assert isinstance(network()(images().as_subclass(Marked)), Marked)
        layers = nn.GroupNorm(4, 4), nn.ReLU(), nn.Identity()
        mixed = network()
        mixed.features[1].bias.data = mixed.features[1].bias.double()
        with pytest.raises(RuntimeError):
            mixed(images())
        assert after_convolution(torch.randn(1, 4, 2, 2), *layers).shape == (1, 4, 2, 2)  # torch's own group norm
    assert not calls


def test_transforms_of_functions_go_through_torchs_layers(calls):
    model = network()
    with fused_maps():
        slopes = torch.func.grad(lambda pixels: model(pixels).sum())(images())
    assert slopes.shape == images().shape
    assert not calls


def test_maps_that_do_not_fit_are_refused_as_by_torch():
    with fused_maps():
        with pytest.raises(RuntimeError, match="normalized_shape"):
            network(norm="layer", pooling="none")(images()[..., :5])
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            after_convolution(torch.randn(1, 4, 1, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Identity())
        with pytest.raises(RuntimeError, match="weight should contain"):
            after_convolution(torch.randn(2, 8, 2, 2), InstanceNorm(4), nn.ReLU(), nn.Identity())
        with pytest.raises(RuntimeError, match="too small"):
            after_convolution(torch.randn(2, 4, 1, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))


def test_no_images_have_no_results(calls):
    with fused_maps():
        assert network(norm="batch").eval()(images()[:0]).shape == (0, 3)
    assert not calls
