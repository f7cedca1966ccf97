"""Jacobian covariance, against numpy on Jacobians by finite differences, and a closed form."""

import numpy as np
import pytest
import torch
from reference import batch, conv_net, numerical_gradient
from torch import nn

from nasproxy.errors import ScoreError
from nasproxy.proxies.zero_cost.jacob_cov import JacobianCovariance


@pytest.mark.parametrize("norm", [True, False])
def test_the_score_is_that_of_finite_differences(norm):
    images, labels = batch()
    model = conv_net(norm=norm, activation=nn.Tanh)
    pixels = images.clone()

    def total():
        with torch.no_grad():
            return float(model.train()(pixels).sum())

    rows = numerical_gradient(total, pixels).flatten(1).numpy()
    eigenvalues = np.linalg.eigvals(np.corrcoef(rows)).real
    expected = -sum(np.log(value + 1e-5) + 1 / (value + 1e-5) for value in eigenvalues)
    found = JacobianCovariance().score(conv_net(norm=norm, activation=nn.Tanh), images, labels)
    assert found == pytest.approx(expected, rel=1e-4)


def test_jacobians_that_are_all_alike_in_closed_form():
    # A linear network has one Jacobian: the correlations are all 1, the eigenvalues n and n - 1 zeros.
    torch.manual_seed(0)
    images, labels = batch(4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 3)).double()
    k = 1e-5
    expected = -(np.log(4 + k) + 1 / (4 + k) + 3 * (np.log(k) + 1 / k))
    assert JacobianCovariance().score(model, images, labels) == pytest.approx(expected, rel=1e-6)


def test_less_correlated_jacobians_score_higher():
    images, labels = batch()
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(32, 3)).double()
    score = JacobianCovariance().score
    assert score(conv_net(), images, labels) > score(linear, images, labels)


def test_a_network_that_ignores_its_input_has_no_score():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(3, dtype=torch.float64))

        def forward(self, images):
            return self.bias.expand(len(images), 3)

    with pytest.raises(ScoreError, match="does not depend"):
        JacobianCovariance().score(Constant(), *batch())


def test_a_flat_jacobian_has_no_score():
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    images, labels = batch(channels=1, classes=1)
    with pytest.raises(ScoreError, match="same for all pixels"):
        JacobianCovariance().score(model, images, labels)
