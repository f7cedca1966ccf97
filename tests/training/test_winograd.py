"""Winograd's convolution and its gradients against torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from nasproxy.kernels.tiles import can_transform
from nasproxy.training import winograd
from nasproxy.training.winograd import WinogradConvolution


@pytest.fixture(params=["compiled", "products"])
def transforms(request, monkeypatch):
    """Either kind of transforms, if both are there."""
    if request.param == "products":
        monkeypatch.setattr(winograd, "can_transform", lambda dtype: False)
    elif not can_transform(torch.float32):
        pytest.skip("nasproxy was installed without a C compiler")


def both(number, height, width, inputs, outputs, dtype):
    """Results, images' gradients and weight's gradients of two batches, by torch and by Winograd's algorithm."""
    torch.manual_seed(height * 100 + width)
    weight = torch.randn(outputs, inputs, 3, 3, dtype=dtype).requires_grad_()
    ours = WinogradConvolution(weight.detach())
    expected, found, on_weight = [], [], torch.zeros_like(weight)
    for _ in range(2):
        images = torch.randn(number, inputs, height, width, dtype=dtype).requires_grad_()
        results = F.conv2d(images, weight, padding=1)
        slope = torch.randn_like(results)
        back, more = torch.autograd.grad(results, [images, weight], slope)
        on_weight = on_weight + more
        expected += [results.detach(), back]
        found.append(ours.forward(images.detach().permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
        found.append(ours.backward(slope.permute(0, 2, 3, 1).contiguous()).permute(0, 3, 1, 2))
    return [*expected, on_weight], [*found, ours.gradient()]


@pytest.mark.parametrize(
    ("height", "width", "number", "inputs", "outputs"),
    [(1, 1, 2, 1, 1), (4, 4, 1, 2, 3), (5, 9, 2, 3, 1), (8, 3, 3, 1, 2), (2, 6, 1, 2, 2), (12, 8, 2, 4, 5)],
)
def test_it_is_the_convolution_at_any_size(height, width, number, inputs, outputs):
    for theirs, ours in zip(*both(number, height, width, inputs, outputs, torch.float64), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("transforms")
def test_float32_is_off_by_millionths():
    torch.manual_seed(0)
    weight, images = torch.randn(32, 32, 3, 3), torch.randn(4, 32, 8, 8)
    whole = F.conv2d(images.double(), weight.double(), padding=1)
    ours = WinogradConvolution(weight).forward(images.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    assert float((ours - whole).norm() / whole.norm()) < 2e-6


@pytest.mark.usefixtures("transforms")
def test_a_narrow_format_is_off_by_a_hundredth_however_many_parts_are_summed():
    torch.manual_seed(0)
    weight, bias = torch.randn(48, 32, 3, 3) / 17, torch.randn(48)
    images, slope = torch.randn(40, 32, 9, 8).bfloat16(), torch.randn(40, 48, 9, 8).bfloat16()
    exact = [each.double().requires_grad_() for each in (images, weight, bias)]
    results = F.conv2d(*exact, padding=1)
    expected = [results.detach(), *torch.autograd.grad(results, exact, slope.double())]
    ours = WinogradConvolution(weight, bias, torch.bfloat16)
    found = []
    for part, back in zip(images.permute(0, 2, 3, 1), slope.permute(0, 2, 3, 1), strict=True):
        found.append((ours.forward(part[None])[0], ours.backward(back[None])[0].clone()))
    forward, backward = (torch.stack(each).permute(0, 3, 1, 2) for each in zip(*found, strict=True))
    assert forward.dtype == backward.dtype == torch.bfloat16
    assert ours.gradient().dtype == ours.bias_gradient().dtype == torch.float32
    for mine, theirs in zip([forward, backward, ours.gradient(), ours.bias_gradient()], expected, strict=True):
        assert float((mine - theirs).norm() / theirs.norm()) < 0.02


@pytest.mark.usefixtures("transforms")
@pytest.mark.parametrize("size", [1, 3, 4, 5])
def test_the_results_are_contiguous(size):
    ours = WinogradConvolution(torch.randn(2, 3, 3, 3))
    assert ours.forward(torch.randn(1, size, size, 3)).is_contiguous()
