"""Equation 10 against loops over rows in NumPy, and its gradient against differences of those loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nasproxy.condensation.distance import (
    distance_between,
    flat_cosine_distance,
    layerwise_cosine_distance,
    squared_euclidean_distance,
)
from nasproxy.condensation.recipe import DISTANCES

SHAPES = [(4, 3, 3, 2), (5, 7), (2, 3, 4), (6,), (3, 1)]  # convolution, linear, layer norm, bias, one input
ROWS = sum(shape[0] for shape in SHAPES if len(shape) > 1)


def reference(real, synthetic):
    """Row by row in float64, as equation 10 and its published implementation describe it."""
    total = 0.0
    for ours, theirs in zip(real, synthetic, strict=True):
        if ours.ndim == 1:
            continue
        for row in range(ours.shape[0]):
            a = np.asarray(ours[row].detach(), dtype=np.float64).ravel()
            b = np.asarray(theirs[row].detach(), dtype=np.float64).ravel()
            product = np.sqrt(np.dot(a, a)) * np.sqrt(np.dot(b, b))
            total += 1.0 - np.dot(a, b) / (product + 1e-6)
    return total


def draw(seed, scale=1.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(shape, generator=generator, dtype=dtype) for shape in SHAPES]


seeds = st.integers(0, 10_000)


@settings(deadline=None)
@given(seeds, seeds, st.floats(1e-5, 1e3), st.floats(1e-5, 1e3))
def test_equals_the_loops_in_float64(one, other, scale, other_scale):
    real, synthetic = draw(one, scale), draw(other, other_scale)
    assert float(layerwise_cosine_distance(real, synthetic)) == pytest.approx(reference(real, synthetic), rel=1e-12)


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if len(shape) > 1])
def test_each_kind_of_parameter_by_itself(shape):
    generator = torch.Generator().manual_seed(3)
    real, synthetic = (torch.randn(shape, generator=generator) for _ in range(2))
    assert float(layerwise_cosine_distance([real], [synthetic])) == pytest.approx(
        reference([real], [synthetic]), rel=1e-5
    )


def test_the_guard_is_added_to_the_product_of_norms():
    real, synthetic = torch.tensor([[3e-4, 4e-4]]), torch.tensor([[2e-3, 0.0]])  # norms 5e-4 and 2e-3: product 1e-6
    assert float(layerwise_cosine_distance([real], [synthetic])) == pytest.approx(1 - 0.6 / 2, rel=1e-5)


def test_equal_gradients_are_not_apart_and_opposite_ones_two_a_row():
    real = draw(0)
    assert float(layerwise_cosine_distance(real, real)) == pytest.approx(0, abs=ROWS * 1e-5)
    assert float(layerwise_cosine_distance(real, [-r for r in real])) == pytest.approx(2 * ROWS, abs=ROWS * 1e-5)


def test_orthogonal_rows_and_rows_of_zeros_are_one_apart():
    eye = torch.eye(4, dtype=torch.float64)
    assert float(layerwise_cosine_distance([eye], [eye.roll(1, 1)])) == 4
    assert float(layerwise_cosine_distance([eye], [torch.zeros_like(eye)])) == 4


def test_biases_take_no_part():
    real, synthetic = draw(1), draw(2)
    before = layerwise_cosine_distance(real, synthetic)
    synthetic[3] = torch.full((6,), torch.nan, dtype=torch.float64)
    assert torch.equal(layerwise_cosine_distance(real, synthetic), before)


@settings(deadline=None)
@given(seeds, seeds, st.floats(1e-2, 1e4))
def test_lies_between_zero_and_two_a_row_is_symmetric_and_free_of_scale(one, other, scale):
    real, synthetic = draw(one), draw(other)
    distance = float(layerwise_cosine_distance(real, synthetic))
    assert 0 <= distance <= 2 * ROWS
    assert float(layerwise_cosine_distance(synthetic, real)) == pytest.approx(distance, rel=1e-12)
    scaled = float(layerwise_cosine_distance(real, [scale * s for s in synthetic]))
    # Only the guard sees the scale: a cosine moves by at most 1e-6 over the smaller product of norms.
    products = [r.flatten(1).norm(dim=1) * s.flatten(1).norm(dim=1) for r, s in zip(real, synthetic, strict=True)
                if r.ndim > 1]  # fmt: skip
    allowed = sum(float((1e-6 / (min(scale, 1) * product)).clamp(max=1).sum()) for product in products)
    assert abs(scaled - distance) <= allowed + 1e-9


def numbers(gradients):
    """All gradients, one number after the other."""
    return [float(number) for gradient in gradients for number in gradient.reshape(-1)]


@settings(deadline=None, max_examples=25)
@given(seeds, seeds, st.floats(1e-4, 1e2))
def test_the_rivals_equal_the_loops_in_float64_over_one_vector(one, other, scale):
    real, synthetic = draw(one, scale), draw(other)
    square = inner = ours = theirs = 0.0
    for a, b in zip(numbers(real), numbers(synthetic), strict=True):
        square, inner, ours, theirs = square + (a - b) ** 2, inner + a * b, ours + a * a, theirs + b * b
    assert float(squared_euclidean_distance(real, synthetic)) == pytest.approx(square, rel=1e-12)
    cosine = inner / (ours**0.5 * theirs**0.5 + 1e-6)
    assert float(flat_cosine_distance(real, synthetic)) == pytest.approx(1 - cosine, rel=1e-12)


def test_every_name_is_a_distance_of_its_own():
    real, synthetic = draw(1), draw(2)
    functions = (layerwise_cosine_distance, squared_euclidean_distance, flat_cosine_distance)
    for name, function in zip(DISTANCES, functions, strict=True):
        assert torch.equal(distance_between(name, real, synthetic), function(real, synthetic))


def test_layers_of_different_networks_are_refused():
    with pytest.raises(ValueError, match="zip"):
        layerwise_cosine_distance(draw(0), draw(0)[:-1])


class Smooth(nn.Module):
    """Twice differentiable, with a convolution, a layer norm and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 3, 3, padding=1)
        self.norm = nn.LayerNorm([3, 4, 4])
        self.linear = nn.Linear(48, 2)

    def forward(self, images):
        return self.linear(torch.sigmoid(self.norm(self.convolution(images))).flatten(1))


def gradients(network, images, labels, *, differentiable):
    loss = F.cross_entropy(network(images), labels)
    return torch.autograd.grad(loss, list(network.parameters()), create_graph=differentiable)


def test_the_gradient_with_respect_to_images_agrees_with_finite_differences():
    torch.manual_seed(0)
    network = Smooth().double()
    real = gradients(network, torch.randn(5, 1, 4, 4).double(), torch.tensor([0, 1, 1, 0, 1]), differentiable=False)
    images, labels = torch.randn(2, 1, 4, 4).double().requires_grad_(), torch.tensor([1, 0])
    layerwise_cosine_distance(real, gradients(network, images, labels, differentiable=True)).backward()

    def at(pixels):
        return reference(real, gradients(network, pixels.view_as(images), labels, differentiable=False))

    step = 1e-5 * torch.eye(images.numel(), dtype=torch.float64)
    flat = images.detach().flatten()
    differences = [(at(flat + one) - at(flat - one)) / 2e-5 for one in step]
    torch.testing.assert_close(images.grad.flatten(), torch.tensor(differences).double(), rtol=1e-5, atol=1e-8)


def test_a_filter_that_is_dead_leaves_the_gradient_finite():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        network[0].bias[0] = -100.0  # its rows of the gradient are exactly zero
    labels = torch.tensor([0, 1])
    real = gradients(network, torch.randn(2, 1, 4, 4), labels, differentiable=False)
    images = torch.randn(2, 1, 4, 4, requires_grad=True)
    synthetic = gradients(network, images, labels, differentiable=True)
    assert not synthetic[0][0].any()
    layerwise_cosine_distance(real, synthetic).backward()
    assert images.grad.isfinite().all()
    assert images.grad.any()
