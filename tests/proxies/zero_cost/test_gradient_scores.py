"""Grad-norm and SNIP, against finite differences in float64 and closed forms."""

import math

import pytest
import torch
from reference import batch, conv_net, loss_of, numerical_gradient
from torch import nn

from nasproxy.errors import InputError, ScoreError
from nasproxy.proxies.zero_cost.grad_norm import GradNorm
from nasproxy.proxies.zero_cost.snip import Snip


@pytest.mark.parametrize("norm", [True, False])
def test_both_are_those_of_finite_differences(norm):
    images, labels = batch()
    reference, model = conv_net(norm=norm), conv_net(norm=norm)
    loss = loss_of(reference, images, labels)
    pairs = [
        (layer.weight.detach().clone(), numerical_gradient(loss, layer.weight))
        for layer in (reference[0], reference[4])
    ]
    expected = sum(float((gradient**2).sum()) ** 0.5 for _, gradient in pairs)
    assert GradNorm().score(model, images, labels) == pytest.approx(expected, rel=1e-6)
    expected = sum(abs(w * g) for weight, grad in pairs for w, g in zip(weight.flatten(), grad.flatten(), strict=True))
    assert Snip().score(conv_net(norm=norm), images, labels) == pytest.approx(float(expected), rel=1e-6)


def test_one_linear_layer_in_closed_form():
    # Two classes, weights zero but for one: p = softmax(w x), dL/dw = (p - y) xᵀ.
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]]))
    images, labels = torch.tensor([[[[1.0, 2.0]]]], dtype=torch.float64), torch.tensor([0])
    # p = (3/4, 1/4): the gradient is (-1/4, 1/4) ⊗ (1, 2).
    assert GradNorm().score(model, images, labels) == pytest.approx(math.sqrt(10 / 16))
    assert Snip().score(model, images, labels) == pytest.approx(math.log(3.0) / 4)


def test_a_layer_that_the_loss_ignores_counts_nothing():
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.Linear(32, 3), nn.Linear(5, 5)

        def forward(self, images):
            return self.used(images.flatten(1))

    torch.manual_seed(0)
    model = Spare().double()
    images, labels = batch()
    whole = GradNorm().score(model, images, labels)
    model.spare = nn.Identity()
    assert GradNorm().score(model, images, labels) == whole


@pytest.mark.parametrize("score", [GradNorm(), Snip()])
def test_a_network_without_weights_has_no_score(score):
    images, labels = batch(classes=2)
    with pytest.raises(ScoreError, match="no weights"):
        score.score(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()).double(), images, labels)


@pytest.mark.parametrize("score", [GradNorm(), Snip()])
def test_what_is_no_number_is_no_score(score):
    images, labels = batch()
    model = conv_net()
    with torch.no_grad():
        model[4].weight.fill_(float("nan"))
    with pytest.raises(ScoreError, match="nan"):
        score.score(model, images, labels)


def test_a_batch_of_one_is_refused():
    with pytest.raises(InputError, match="2 images"):
        Snip(batch=1)
