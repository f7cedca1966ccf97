"""Convolutions in place of a network's own: the same results, layouts and gradients, and no network changed."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from nasproxy.condensation.distribution_matching import distribution_loss
from nasproxy.condensation.mean_gradients import mean_gradients
from nasproxy.networks.convnet import ConvNet
from nasproxy.training import convolution
from nasproxy.training import precision as precision_module
from nasproxy.training.precision import autocast
from nasproxy.training.recipe import TrainingRecipe
from nasproxy.training.train import Images, train
from nasproxy.training.winograd_convolution import convolve

CPU = torch.device("cpu")
WIDE, SIZE = 96, 8  # from here on it pays


def images_of(channels=WIDE, size=SIZE):
    torch.manual_seed(1)
    return torch.randn(3, channels, size, size)


TAKEN = [
    nn.Conv2d(WIDE, WIDE, 3, padding=1),
    nn.Conv2d(WIDE, 2 * WIDE, 3, padding="same", bias=False),
    nn.Conv2d(WIDE, WIDE, 3, padding=(1, 1)).to(memory_format=torch.channels_last),
]
LEFT = [
    nn.Conv2d(WIDE, WIDE, 3, padding=1, stride=2),
    nn.Conv2d(WIDE, WIDE, 3, padding=1, groups=2),
    nn.Conv2d(WIDE, WIDE, 3, padding=2, dilation=2),
    nn.Conv2d(WIDE, WIDE, 3, padding="valid"),
    nn.Conv2d(WIDE, WIDE, 3, padding=1, padding_mode="circular"),
    nn.Conv2d(WIDE, WIDE, 5, padding=2),
    nn.Conv2d(WIDE, WIDE, 1),
    nn.Conv2d(WIDE, 8, 3, padding=1),
]


@torch.no_grad()
@pytest.mark.parametrize("layer", TAKEN, ids=str)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_wide_convolution_is_taken_unless_asked_not_to(layer, precision, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    images = images_of()
    outside = layer(images)
    dtype = getattr(torch, precision)
    plain = F.conv2d(
        images.to(dtype), layer.weight.to(dtype), None if layer.bias is None else layer.bias.to(dtype), padding=1
    )
    with autocast(precision, CPU):
        ours = layer(images)
        by_name = torch.conv2d(input=images, weight=layer.weight, bias=layer.bias, padding=1)
    with autocast(f"{precision}-direct", CPU):
        direct = layer(images)
    assert torch.equal(ours, convolve(images.to(dtype), layer.weight, layer.bias))
    assert torch.equal(ours, by_name)
    assert ours.dtype == dtype
    assert not torch.equal(ours, plain)
    assert torch.equal(direct, plain)
    assert torch.equal(layer(images), outside)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("channels", "width", "size"), [(1, 64, 8), (WIDE, WIDE, 8), (128, 128, 2)])
def test_what_follows_may_write_in_place(channels, width, size, precision):
    layers = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True))
    layers = layers.to(memory_format=torch.channels_last)
    images = images_of(channels, size).to(memory_format=torch.channels_last)
    found = []
    for name in (precision, f"{precision}-direct"):
        with autocast(name, CPU):
            result = layers(images).float()
        result.square().sum().backward()
        found.append([result.detach(), *(parameter.grad for parameter in layers.parameters())])
        layers.zero_grad()
    for ours, theirs in zip(*found, strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < (1e-5 if precision == "float32" else 0.05)


@torch.no_grad()
@pytest.mark.parametrize("channels", [1, WIDE])
@pytest.mark.parametrize("wrong", [{"bias": torch.zeros(1)}, {"bias": torch.zeros(WIDE + 1)}, {"padding": ()}])
def test_what_torch_refuses_is_refused_in_its_words(channels, wrong):
    images, weight = images_of(channels), torch.zeros(WIDE, channels, 3, 3).to(memory_format=torch.channels_last)
    with pytest.raises(RuntimeError) as expected:
        F.conv2d(images, weight, **{"padding": 1, **wrong})
    with autocast("float32", CPU), pytest.raises(RuntimeError) as found:
        F.conv2d(images, weight, **{"padding": 1, **wrong})
    assert str(found.value) == str(expected.value)


@torch.no_grad()
@pytest.mark.parametrize("layer", LEFT, ids=str)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_others_are_torchs(layer, precision):
    images = images_of()
    with autocast(f"{precision}-direct", CPU):
        plain = layer(images)
    with autocast(precision, CPU):
        assert torch.equal(layer(images), plain)


@torch.no_grad()
@pytest.mark.parametrize(("precision", "winograd"), [("float32", True), ("bfloat16", False)])
def test_what_must_be_exact_is_only_winograds_in_float32(precision, winograd, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    layer, images = TAKEN[0], images_of()
    with autocast(f"{precision}-direct", CPU):
        plain = layer(images)
    with autocast(precision, CPU, exact=True):
        assert torch.equal(layer(images), plain) != winograd


@pytest.mark.parametrize("method", ["gradients", "features"])
def test_real_images_are_seen_exactly_while_condensing(method, monkeypatch):
    asked = []

    class Seen(convolution.FastConvolutions):
        def __init__(self, **settings):
            asked.append(settings["exact"])
            super().__init__(**settings)

    monkeypatch.setattr(precision_module, "FastConvolutions", Seen)
    model, images = ConvNet(1, 3, (8, 8), width=4, depth=1), images_of(1)
    if method == "gradients":
        mean_gradients(model, list(model.parameters()), images, torch.arange(3), chunk=0, precision="bfloat16")
    else:
        distribution_loss(model, [images], [images], precision="bfloat16")
    assert asked[-1] is True


@torch.no_grad()
def test_other_formats_other_ranks_and_transforms_are_torchs(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    layer, images = nn.Conv2d(WIDE, WIDE, 3, padding=1), images_of()
    plain, double = layer(images), copy.deepcopy(layer).double()
    with autocast("float32", CPU):
        assert torch.equal(double(images.double()), F.conv2d(images.double(), double.weight, double.bias, padding=1))
        torch.testing.assert_close(layer(images[0]), plain[0])
        torch.testing.assert_close(torch.vmap(layer)(images[:, None])[:, 0], plain)
        with torch.autocast("cpu", dtype=torch.float16):
            assert torch.equal(
                layer(images), F.conv2d(images.half(), layer.weight.half(), layer.bias.half(), padding=1)
            )
        with torch.autocast("cpu", dtype=torch.bfloat16):  # of a user's network, say
            assert torch.equal(layer(images), convolve(images.bfloat16(), layer.weight, layer.bias))
        assert len(layer(images[:0])) == 0


@pytest.mark.slow  # torch's checkpoint imports its compiler
def test_a_checkpointed_part_is_computed_anew():
    layer, images = nn.Conv2d(WIDE, WIDE, 3, padding=1), images_of()
    found = []
    for call in (layer, lambda x: checkpoint(layer, x, use_reentrant=False)):
        with autocast("float32", CPU):
            loss = call(images).square().sum()
        found.append(torch.autograd.grad(loss, list(layer.parameters())))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, WIDE, 3, padding=1), nn.ReLU(), nn.Conv2d(WIDE, WIDE, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(WIDE * SIZE * SIZE, 3))


@pytest.mark.parametrize(("precision", "off"), [("float32", 1e-4), ("bfloat16", 0.2)])
def test_a_training_differs_by_rounding_and_leaves_the_network_what_it_was(precision, off, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    data = Images(images_of(channels=1), torch.arange(3))
    scores, weights, direct = {}, {}, f"{precision}-direct"
    for name in (precision, precision, direct):
        model = network()
        made = {name: set(vars(module)) for name, module in model.named_modules()}
        score = train(model, data, TrainingRecipe(2), data, seed=0, precision=name)[-1]
        assert {name: set(vars(module)) for name, module in model.named_modules()} == made
        assert list(copy.deepcopy(model).state_dict()) == list(network().state_dict())
        assert scores.setdefault(name, score) == score
        weights[name] = model[2].weight.detach()
        assert weights[name].dtype == torch.float32
    assert not torch.equal(weights[precision], weights[direct])
    assert scores[precision].cross_entropy == pytest.approx(scores[direct].cross_entropy, rel=off)
    initial = network()[2].weight.detach()
    moved, expected = weights[precision] - initial, weights[direct] - initial
    assert float((moved - expected).norm() / expected.norm()) < off
