"""SynFlow, against the product of absolute weights and finite differences."""

import pytest
import torch
from reference import batch, conv_net, numerical_gradient
from torch import nn

from nasproxy.errors import ScoreError
from nasproxy.proxies.zero_cost.synflow import SynFlow

IMAGES, LABELS = batch(channels=1, size=3)


def chain(*between):
    torch.manual_seed(1)
    linears = [nn.Linear(9, 5), nn.Linear(5, 4), nn.Linear(4, 3)]
    return nn.Sequential(nn.Flatten(), linears[0], *between, linears[1], *between, linears[2]).double()


def product_of(model):
    flow = torch.ones(1, dtype=torch.float64)
    for layer in [module for module in model.modules() if isinstance(module, nn.Linear)][::-1]:
        flow = flow @ layer.weight.detach().abs() if len(flow) > 1 else layer.weight.detach().abs().sum(0)
    return float(flow.sum())


@pytest.mark.parametrize("between", [[], [nn.ReLU()], [nn.Sigmoid()], [nn.LeakyReLU(0.01), nn.Dropout(0.5)]])
def test_each_layer_of_a_chain_passes_the_product_of_absolute_weights(between):
    model = chain(*between)
    expected = product_of(model)
    assert SynFlow().score(model, IMAGES, LABELS) == pytest.approx(3 * expected)


def test_normalisations_are_left_out():
    torch.manual_seed(1)
    plain = chain()
    normed = nn.Sequential(
        plain[0], plain[1], nn.BatchNorm1d(5), nn.ReLU(), plain[2], nn.LayerNorm(4), plain[3]
    ).double()
    expected = 3 * product_of(plain)
    assert SynFlow().score(normed, IMAGES, LABELS) == pytest.approx(expected)


def test_branches_are_those_of_finite_differences():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.skip, self.head = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(1, 2, 1), nn.Linear(2, 3)

        def forward(self, images):
            features = torch.relu(self.conv(images)) + self.skip(images)
            return self.head(features.amax((2, 3)))

    torch.manual_seed(3)
    model, reference = Branches().double(), Branches().double()
    reference.load_state_dict(model.state_dict())
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.copy_(parameter.abs() if parameter.ndim > 1 else torch.zeros_like(parameter))

    def flow():
        with torch.no_grad():
            return float(reference(torch.ones(1, 1, 3, 3, dtype=torch.float64)).sum())

    weights = [reference.conv.weight, reference.skip.weight, reference.head.weight]
    expected = sum(float((weight.detach() * numerical_gradient(flow, weight)).sum()) for weight in weights)
    assert SynFlow().score(model, IMAGES, LABELS) == pytest.approx(expected, rel=1e-7)


def test_the_signs_of_weights_and_the_images_do_not_matter():
    model, flipped = conv_net(), conv_net()
    with torch.no_grad():
        flipped[0].weight.neg_()
    images, labels = batch()
    assert SynFlow().score(model, images, labels) == SynFlow().score(flipped, images + 1, labels)


def test_a_float32_network_deep_enough_to_leave_float32_has_a_score():
    torch.manual_seed(0)
    layers = [nn.Linear(400, 400) for _ in range(40)]
    with torch.no_grad():
        for layer in layers:
            layer.weight.fill_(1.0)
    score = SynFlow().score(nn.Sequential(nn.Flatten(), *layers), torch.zeros(2, 1, 20, 20), LABELS[:2])
    assert score == pytest.approx(40 * 400.0**41)


def test_without_weights_there_is_no_score():
    with pytest.raises(ScoreError, match="no weights"):
        SynFlow().score(nn.Sequential(nn.Flatten(), nn.ReLU()), IMAGES, LABELS)


def test_without_signal_there_is_no_score():
    model = chain()
    with torch.no_grad():
        model[2].weight.zero_()
    with pytest.raises(ScoreError, match="No signal"):
        SynFlow().score(model, IMAGES, LABELS)
