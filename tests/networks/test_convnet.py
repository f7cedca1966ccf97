"""The paper's ConvNet: sizes counted by hand, and layers written out in torch's own functions."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from nasproxy.errors import InputError
from nasproxy.networks.convnet import ACTIVATIONS, NORMS, POOLINGS, ConvNet
from nasproxy.networks.norms import InstanceNorm, differentiated_twice


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"width": 8, "depth": 1, "norm": "none"}, (2 * 9 + 1) * 8 + (8 * 16 + 1) * 5),
        ({"width": 8, "depth": 1, "norm": "layer"}, (2 * 9 + 1) * 8 + 2 * 8 * 64 + (8 * 16 + 1) * 5),
        ({"width": 8, "depth": 2, "norm": "batch"}, (2 * 9 + 1) * 8 + (8 * 9 + 1) * 8 + 4 * 8 + (8 * 4 + 1) * 5),
        ({"width": 8, "depth": 2, "norm": "group"}, (2 * 9 + 1) * 8 + (8 * 9 + 1) * 8 + 4 * 8 + (8 * 4 + 1) * 5),
        ({"width": 8, "depth": 1, "norm": "instance", "pooling": "none"}, (2 * 9 + 3) * 8 + (8 * 64 + 1) * 5),
    ],
    ids=str,
)
def test_has_the_parameters_counted_by_hand(settings, expected):
    assert parameters(ConvNet(2, 5, (8, 8), **settings)) == expected


def test_the_default_is_the_papers():
    model = ConvNet(3, 10, (32, 32))
    assert parameters(model) == (27 + 3) * 128 + 2 * (128 * 9 + 3) * 128 + (128 * 16 + 1) * 10 == 320_010
    layers = [type(layer).__name__ for layer in model.features]
    assert layers == ["Conv2d", "InstanceNorm", "ReLU", "AvgPool2d"] * 3
    assert [layer.weight.shape[0] for layer in model.features if isinstance(layer, torch.nn.Conv2d)] == [128] * 3


def normalise(kind, rows, weight, bias):
    if kind == "batch":
        return F.batch_norm(rows, None, None, weight, bias, training=True)
    if kind == "layer":
        return F.layer_norm(rows, rows.shape[1:], weight, bias)
    groups = {"instance": rows.shape[1], "group": 4}
    return F.group_norm(rows, groups[kind], weight, bias) if kind in groups else rows


def forward(parameters, images, depth, norm, activation, pooling):
    """The network written out, in double precision."""
    activate = {"sigmoid": torch.sigmoid, "relu": F.relu, "leaky_relu": lambda x: F.leaky_relu(x, 0.01)}[activation]
    pool = {"none": lambda x: x, "max": lambda x: F.max_pool2d(x, 2), "average": lambda x: F.avg_pool2d(x, 2)}[pooling]
    left = [parameter.double() for parameter in parameters]
    rows = images.double()
    for _ in range(depth):
        rows = F.conv2d(rows, left.pop(0), left.pop(0), padding=1)
        affine = (left.pop(0), left.pop(0)) if norm != "none" else (None, None)
        rows = pool(activate(normalise(norm, rows, *affine)))
    return F.linear(rows.flatten(1), *left)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_computes_what_its_description_says(norm, activation, pooling):
    torch.manual_seed(0)
    model = ConvNet(2, 3, (9, 6), width=8, depth=2, norm=norm, activation=activation, pooling=pooling)
    with torch.no_grad():  # affine maps are born as ones and zeros, which would hide their absence
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    images = torch.randn(4, 2, 9, 6)
    expected = forward(model.parameters(), images, 2, norm, activation, pooling)
    torch.testing.assert_close(model(images).double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_instance_norm_is_group_norm_of_single_channels(dtype, layout):
    torch.manual_seed(0)
    norm = InstanceNorm(6).to(dtype)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    images = torch.randn(3, 6, 5, 4, dtype=dtype).to(memory_format=layout).requires_grad_()
    ours, theirs = norm(images), F.group_norm(images, 6, norm.weight, norm.bias, norm.eps)
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn_like(ours)
    inputs = (images, norm.weight, norm.bias)
    for mine, other in zip(
        torch.autograd.grad((ours * weights).sum(), inputs), torch.autograd.grad((theirs * weights).sum(), inputs),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("passes", [nullcontext, differentiated_twice])
def test_instance_norm_can_be_differentiated_twice(passes):
    norm = InstanceNorm(2).double()
    images = torch.randn(2, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with passes():
        assert torch.autograd.gradgradcheck(norm, (images.requires_grad_(),))


class _SeesGroupNorms(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.formats = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.native_group_norm.default:
            self.formats.append(args[0].dtype)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("channels", "computes_in"), [(8, torch.float32), (60, torch.float32), (64, torch.bfloat16)])
def test_group_norm_of_few_channels_leaves_a_narrow_format_and_comes_back(channels, computes_in):
    torch.manual_seed(0)
    norm = NORMS["group"](channels, (5, 4))
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    images = torch.randn(3, channels, 5, 4).bfloat16().to(memory_format=torch.channels_last)
    maps, slope = images.clone().requires_grad_(), torch.randn_like(images)
    found = norm(maps)
    found.backward(slope)
    assert found.dtype == maps.grad.dtype == torch.bfloat16
    exact = images.double().requires_grad_()
    expected = F.group_norm(exact, 4, norm.weight.double(), norm.bias.double(), norm.eps)
    expected.backward(slope.double())
    torch.testing.assert_close(found.double(), expected, rtol=2**-7, atol=2**-7)
    torch.testing.assert_close(maps.grad.double(), exact.grad, rtol=2**-6, atol=2**-6)
    with _SeesGroupNorms() as seen:
        norm(images)
        norm.bfloat16()(images)  # all in one format, as torch's takes it too
    assert seen.formats == [computes_in, torch.bfloat16]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_channels_lie_side_by_side_in_maps_and_in_their_gradients(norm, pooling):
    """Between this and the other layout numbers are copied one by one, which took as long as all the arithmetic."""
    model = ConvNet(3, 5, (8, 8), width=8, depth=2, norm=norm, pooling=pooling)
    layouts = []

    def see(tensor):
        layouts.append(tensor.stride(1))

    def see_both(layer, inputs, maps):
        see(maps)
        maps.register_hook(see)

    for layer in model.features:
        layer.register_forward_hook(see_both)
    model(torch.randn(4, 3, 8, 8)).sum().backward()
    assert layouts == [1] * 2 * len(model.features)


def test_what_is_exported_names_the_layers_plainly():
    model = ConvNet(3, 5, (8, 8), width=8, depth=2, norm="instance").eval()
    images = torch.randn(4, 3, 8, 8)
    program = torch.export.export(model, (images,))
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert called.count("aten.instance_norm.default") == 2
    assert "aten.permute.default" not in called
    torch.testing.assert_close(program.module()(images), model(images), rtol=1e-4, atol=1e-5)


def test_gray_images_of_28_pixels_go_on_as_32():
    model = ConvNet(1, 10, (28, 28), width=4)
    sizes = []
    for layer in model.features:
        layer.register_forward_hook(lambda module, inputs, output: sizes.append(output.shape[-1]))
    assert model(torch.randn(2, 1, 28, 28)).shape == (2, 10)
    assert sizes == [32, 32, 32, 16, 16, 16, 16, 8, 8, 8, 8, 4]
    assert parameters(model) == parameters(ConvNet(1, 10, (32, 32), width=4))


@pytest.mark.parametrize(("channels", "size"), [(3, (28, 28)), (1, (28, 32)), (1, (27, 27))])
def test_no_other_images_are_padded(channels, size):
    model = ConvNet(channels, 10, size, width=4, depth=1, pooling="none")
    assert model.classifier.in_features == 4 * size[0] * size[1]


def test_padding_moves_zeros_in_around_the_image():
    torch.manual_seed(0)
    model = ConvNet(1, 10, (28, 28), width=4)
    like = ConvNet(1, 10, (32, 32), width=4)
    like.load_state_dict(model.state_dict())
    images = torch.randn(2, 1, 28, 28)
    torch.testing.assert_close(model(images), like(F.pad(images, (2, 2, 2, 2))))


def test_embed_is_what_the_classifier_reads():
    model = ConvNet(3, 5, (8, 8), width=4, depth=2)
    images = torch.randn(3, 3, 8, 8)
    assert model.embed(images).shape == (3, 4 * 2 * 2)
    torch.testing.assert_close(model.classifier(model.embed(images)), model(images))
    torch.testing.assert_close(
        F.linear(model.embed(images), model.classifier.weight, model.classifier.bias), model(images)
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "instanse"}, "No norm is called 'instanse'.*Did you mean instance.*batch"),
        ({"activation": "leakyrelu"}, "No activation is called 'leakyrelu'.*Did you mean leaky_relu"),
        ({"pooling": "avg"}, "No pooling is called 'avg'.*average"),
    ],
)
def test_unknown_names_are_errors_that_name_the_nearest(settings, message):
    with pytest.raises(InputError, match=message):
        ConvNet(1, 10, (16, 16), **settings)


@pytest.mark.parametrize(("size", "depth"), [((4, 4), 3), ((32, 4), 3), ((7, 7), 3), ((1, 8), 1)])
def test_an_image_that_is_too_small_is_an_error(size, depth):
    with pytest.raises(InputError, match=rf"{size[0]}×{size[1]} pixels is too small for {depth} poolings"):
        ConvNet(1, 10, size, depth=depth)
    assert ConvNet(1, 10, size, width=4, depth=depth, pooling="none").classifier.in_features == 4 * size[0] * size[1]
