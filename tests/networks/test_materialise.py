"""Networks that strangers build, before they are trained."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from nasproxy.errors import SpaceError
from nasproxy.networks.materialise import materialise

IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Returns(nn.Module):
    def __init__(self, what) -> None:
        super().__init__()
        self.what = what

    def forward(self, images):
        return self.what(images)


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_lazy_layers_get_their_shapes():
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(5))
    assert materialise(model, IMAGES, 5) is model
    assert [tuple(parameter.shape) for parameter in model.parameters()] == [(4, 3, 3, 3), (4,), (5, 4 * 36), (5,)]
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("training", [True, False])
def test_statistics_stay_and_the_model_is_ready_to_train(training):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(144, 5))
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    materialise(model.train(training), IMAGES, 5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("what", "came"),
    [
        (lambda images: images.flatten(1), r"\(2, 192\)"),
        (lambda images: images.new_zeros(1, 5), r"\(1, 5\)"),
        (lambda images: images.new_zeros(2, 5, 1), r"\(2, 5, 1\)"),
        (lambda images: images.mean(), r"\(\)"),
        (lambda images: (images.new_zeros(2, 5), images), "tuple"),
        (lambda images: {"logits": images.new_zeros(2, 5)}, "dict"),
        (lambda images: None, "NoneType"),
    ],
)
def test_anything_but_one_row_of_logits_an_image_is_an_error(what, came):
    with pytest.raises(SpaceError, match=rf"returned {came} for 2 images of 5 classes, expected \(2, 5\)") as caught:
        materialise(Returns(what), IMAGES, 5)
    assert "one row of logits" in caught.value.hint
