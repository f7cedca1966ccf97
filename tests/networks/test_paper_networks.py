"""The paper's other networks: parameters summed by hand, layers written out in torch's own functions, sizes allowed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nasproxy.errors import InputError
from nasproxy.networks.build import build_network
from nasproxy.networks.cost import count_parameters
from nasproxy.networks.names import NETWORKS
from nasproxy.networks.norms import InstanceNorm

CONV3 = 3 * 3
CONV5 = 5 * 5

# For 32×32 pixels of three channels and ten classes; weights, then one bias an output, then two of a norm a channel.
BY_HAND = {
    "mlp": (32 * 32 * 3 + 1) * 128 + (128 + 1) * 128 + (128 + 1) * 10,
    "convnet": (3 * CONV3 + 1 + 2) * 128 + 2 * (128 * CONV3 + 1 + 2) * 128 + (128 * 4 * 4 + 1) * 10,
    "lenet": (3 * CONV5 + 1) * 6 + (6 * CONV5 + 1) * 16 + (16 * 5 * 5 + 1) * 120 + (120 + 1) * 84 + (84 + 1) * 10,
    "alexnet": (3 * CONV5 + 1) * 128
    + (128 * CONV5 + 1) * 192
    + (192 * CONV3 + 1) * 256
    + (256 * CONV3 + 1) * 192
    + (192 * CONV3 + 1) * 192
    + (192 * 4 * 4 + 1) * 10,
    "vgg11": (3 * CONV3 + 1 + 2) * 64
    + (64 * CONV3 + 1 + 2) * 128
    + (128 * CONV3 + 1 + 2) * 256
    + (256 * CONV3 + 1 + 2) * 256
    + (256 * CONV3 + 1 + 2) * 512
    + 3 * (512 * CONV3 + 1 + 2) * 512
    + (512 + 1) * 10,
    # No biases beside the norms; a stage that halves: its first convolution, three more, and the 1×1 shortcut.
    "resnet18": (3 * CONV3 + 2) * 64
    + 4 * (64 * CONV3 + 2) * 64
    + (64 * CONV3 + 2) * 128 + 3 * (128 * CONV3 + 2) * 128 + (64 + 2) * 128
    + (128 * CONV3 + 2) * 256 + 3 * (256 * CONV3 + 2) * 256 + (128 + 2) * 256
    + (256 * CONV3 + 2) * 512 + 3 * (512 * CONV3 + 2) * 512 + (256 + 2) * 512
    + (512 + 1) * 10,
}  # fmt: skip
SUMS = {
    "mlp": 411_146,
    "convnet": 320_010,
    "lenet": 62_006,
    "alexnet": 1_872_202,
    "vgg11": 9_231_114,
    "resnet18": 11_173_962,
}
SMALLEST = {"mlp": 1, "convnet": 8, "lenet": 16, "alexnet": 8, "vgg11": 32, "resnet18": 9}


def build(name, channels=3, size=(32, 32), **settings):
    torch.manual_seed(0)
    return build_network(name, channels, 10, size, **settings)


@pytest.mark.parametrize("condensing", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_has_the_parameters_summed_by_hand(name, condensing):
    with torch.device("meta"):
        model = build_network(name, 3, 10, (32, 32), condensing=condensing)
    assert count_parameters(model) == BY_HAND[name] == SUMS[name]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_has_a_gradient_at_the_smallest_size(name, channels):
    size = (SMALLEST[name],) * 2
    for condensing in (False, True):
        model = build(name, channels, size, condensing=condensing)
        logits = model(torch.randn(2, channels, *size))
        assert logits.shape == (2, 10)
        logits.logsumexp(1).sum().backward()
        assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("name", [name for name, side in SMALLEST.items() if side > 1])
def test_smaller_images_are_an_error_that_names_the_smallest(name):
    side = SMALLEST[name] - 1
    with pytest.raises(InputError, match=f"{side}×{side} pixels is too small.*{side + 1}×{side + 1} or more"):
        build(name, size=(side, side))


@pytest.mark.parametrize("name", ["lenet", "alexnet", "vgg11"])
def test_images_narrower_than_the_smallest_are_an_error_too(name):
    with pytest.raises(InputError, match="too small"):
        build(name, size=(64, SMALLEST[name] - 1))


@pytest.mark.parametrize("name", NETWORKS)
def test_other_sizes(name):
    with torch.device("meta"):
        for size in ((64, 64), (33, 40)):
            assert build_network(name, 3, 7, size)(torch.randn(2, 3, *size)).shape == (2, 7)


@pytest.mark.parametrize("name", ["convnet", "lenet", "alexnet", "vgg11"])
def test_gray_images_of_28_pixels_go_on_as_32(name):
    small, large = build(name, 1, (28, 28)), build(name, 1, (32, 32))
    large.load_state_dict(small.state_dict())
    images = torch.randn(2, 1, 28, 28)
    torch.testing.assert_close(small(images), large(F.pad(images, (2, 2, 2, 2))))


@pytest.mark.parametrize("name", ["mlp", "resnet18"])
def test_the_others_take_28_pixels_as_they_are(name):
    seen = []
    model = build(name, 1, (28, 28))
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    convolutions[0].register_forward_hook(lambda module, inputs, output: seen.append((inputs[0].shape, output.shape)))
    model(torch.randn(2, 1, 28, 28))
    assert seen == ([((2, 784), (2, 128))] if name == "mlp" else [((2, 1, 28, 28), (2, 64, 28, 28))])


def instance(rows, weight, bias):
    return F.group_norm(rows, rows.shape[1], weight, bias)


def mlp(rows, take):
    rows = F.relu(F.linear(rows.flatten(1), take(), take()))
    return F.relu(F.linear(rows, take(), take()))


def lenet(rows, take):
    for _ in range(2):
        rows = F.max_pool2d(F.relu(F.conv2d(rows, take(), take())), 2)
    rows = F.relu(F.linear(rows.flatten(1), take(), take()))
    return F.relu(F.linear(rows, take(), take()))


def alexnet(rows, take):
    for padding, pooled in ((2, True), (2, True), (1, False), (1, False), (1, True)):
        rows = F.relu(F.conv2d(rows, take(), take(), padding=padding))
        rows = F.max_pool2d(rows, 2) if pooled else rows
    return rows.flatten(1)


def vgg11(rows, take):
    for pooled in (True, True, False, True, False, True, False, True):
        rows = F.relu(instance(F.conv2d(rows, take(), take(), padding=1), take(), take()))
        rows = F.max_pool2d(rows, 2) if pooled else rows
    return rows.flatten(1)


def resnet18(rows, take):
    rows = F.relu(instance(F.conv2d(rows, take(), padding=1), take(), take()))
    for stride in (1, 1, 2, 1, 2, 1, 2, 1):
        kept = rows
        rows = F.relu(instance(F.conv2d(rows, take(), stride=stride, padding=1), take(), take()))
        rows = instance(F.conv2d(rows, take(), padding=1), take(), take())
        if stride == 2:
            kept = instance(F.conv2d(kept, take(), stride=2), take(), take())
        rows = F.relu(rows + kept)
    return rows.mean(dim=(2, 3))


@pytest.mark.parametrize("written_out", [mlp, lenet, alexnet, vgg11, resnet18])
def test_computes_what_its_description_says(written_out):
    model = build(written_out.__name__).double()
    with torch.no_grad():  # affine maps are born as ones and zeros, which would hide their absence
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    parameters = model.parameters()
    features = written_out(images, lambda: next(parameters))
    torch.testing.assert_close(model.embed(images), features)
    torch.testing.assert_close(model(images), F.linear(features, *parameters))


@pytest.mark.parametrize("name", ["vgg11", "resnet18"])
def test_batch_normalisation_is_there_while_condensing_and_instance_normalisation_afterwards(name):
    with torch.device("meta"):
        condensing, measured = (
            list(build_network(name, 3, 10, (32, 32), condensing=c).modules()) for c in (True, False)
        )
    norms = 8 if name == "vgg11" else 20
    assert sum(isinstance(module, nn.BatchNorm2d) for module in condensing) == norms
    assert not any(isinstance(module, nn.GroupNorm) for module in condensing)
    assert sum(isinstance(module, InstanceNorm) for module in measured) == norms
    assert not any(isinstance(module, nn.BatchNorm2d) for module in measured)


@pytest.mark.parametrize("size", [(32, 32), (28, 28), (9, 13)])
def test_strides_become_average_pooling_of_the_same_sizes_while_condensing(size):
    shapes = []
    for condensing in (True, False):
        model = build("resnet18", 1, size, condensing=condensing)
        strides = [module.stride for module in model.modules() if isinstance(module, nn.Conv2d)]
        assert strides.count((2, 2)) == (0 if condensing else 6)
        assert sum(isinstance(module, nn.AvgPool2d) for module in model.modules()) == (6 if condensing else 0)
        after = []
        for layer in model.features:
            layer.register_forward_hook(lambda module, inputs, output, after=after: after.append(output.shape))
        model(torch.randn(2, 1, *size))
        shapes.append(after)
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", ["mlp", "convnet", "lenet", "alexnet"])
def test_networks_without_batch_normalisation_are_the_same_while_condensing(name):
    one, other = build(name, 1, (16, 16), condensing=True), build(name, 1, (16, 16))
    images = torch.randn(2, 1, 16, 16)
    assert torch.equal(one(images), other(images))


def test_unknown_names_are_an_error():
    with pytest.raises(InputError, match="Did you mean resnet18"):
        build("resnet-18")
