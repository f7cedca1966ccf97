"""NASWOT, against Hamming distances counted one by one."""

import numpy as np
import pytest
import torch
from reference import batch, conv_net
from torch import nn

from nasproxy.errors import ScoreError
from nasproxy.proxies.zero_cost.naswot import Naswot


def codes_of(model, images):
    """The switch of each rectified unit for each image, by hooks on their outputs."""
    codes = []
    hooks = [
        module.register_forward_hook(lambda *arguments: codes.append(arguments[2].flatten(1) > 0))
        for module in model.modules()
        if isinstance(module, (nn.ReLU, nn.LeakyReLU))
    ]
    model.train()(images)
    for hook in hooks:
        hook.remove()
    return torch.cat(codes, 1).numpy()


@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU])
def test_the_kernel_counts_units_that_agree(activation):
    images, labels = batch()
    codes = codes_of(conv_net(activation=activation), images)
    units = codes.shape[1]
    kernel = [[units - sum(a != b for a, b in zip(one, other, strict=True)) for other in codes] for one in codes]
    expected = np.log(abs(np.linalg.det(np.array(kernel, dtype=float))))
    assert Naswot().score(conv_net(activation=activation), images, labels) == pytest.approx(expected)


def test_several_layers_and_rectifiers_that_overwrite_their_input():
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(32, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 3)]
    model = nn.Sequential(*layers).double()
    images, labels = batch()
    codes = codes_of(model, images).astype(float)
    expected = np.linalg.slogdet(codes @ codes.T + (1 - codes) @ (1 - codes.T)).logabsdet
    for layer in (layers[2], layers[4]):
        layer.inplace = True
    assert Naswot().score(model, images, labels) == pytest.approx(expected)


def test_two_images_and_three_units_in_closed_form():
    # Codes (1, 1, 0) and (1, 0, 0): K = [[3, 2], [2, 3]], whose determinant is 5.
    model = nn.Sequential(nn.Flatten(), nn.ReLU())
    images = torch.tensor([[[[1.0, 2.0, -1.0]]], [[[3.0, -1.0, -1.0]]]])
    assert Naswot().score(model, images, torch.tensor([0, 1])) == pytest.approx(np.log(5))


@pytest.mark.parametrize("activation", [nn.Sigmoid, nn.Tanh, nn.GELU])
def test_without_rectified_units_there_is_no_score(activation):
    with pytest.raises(ScoreError, match="no ReLU"):
        Naswot().score(conv_net(activation=activation), *batch())


def test_images_that_switch_the_same_units_have_no_score():
    images, labels = batch()
    with pytest.raises(ScoreError, match="do not differ"):
        Naswot().score(conv_net(), images[:1].repeat(3, 1, 1, 1), labels[:3])
