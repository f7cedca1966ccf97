"""Winograd's convolutions: torch's results, layouts and gradients, and where they pay."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from convolutions import LAYOUTS, results_and_gradients
from hypothesis import given, settings
from hypothesis import strategies as st

from nasproxy.training import winograd, winograd_convolution
from nasproxy.training.winograd_convolution import convolve, pays


@given(
    number=st.integers(1, 40),
    channels=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    size=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    biased=st.booleans(),
    layouts=st.tuples(*[st.sampled_from(sorted(LAYOUTS))] * 3),
    wanted=st.tuples(*[st.booleans()] * 3).filter(any),
)
@settings(max_examples=30, deadline=None)
def test_results_and_gradients_are_those_of_the_plain_sum(number, channels, size, biased, layouts, wanted):
    inputs, outputs = channels
    torch.manual_seed(number)
    shapes = (number, inputs, *size), (outputs, inputs, 3, 3), (number, outputs, *size)
    images, weight, slope = (
        torch.randn(shape, dtype=torch.float64).contiguous(memory_format=LAYOUTS[layout])
        for shape, layout in zip(shapes, layouts, strict=True)
    )
    bias = torch.randn(outputs, dtype=torch.float64) if biased else None
    operands = [images, weight, bias]
    for operand, want in zip(operands, wanted, strict=True):
        if operand is not None:
            operand.requires_grad_(want or not (wanted[0] or wanted[1]))
    found = results_and_gradients(convolve, operands, slope)
    expected = results_and_gradients(lambda x, w, b: F.conv2d(x, w, b, padding=1), operands, slope)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_float32_is_off_by_millionths():
    torch.manual_seed(0)
    operands = [torch.randn(9, 32, 16, 16), torch.randn(48, 32, 3, 3) / 17, torch.randn(48)]
    slope = torch.randn(9, 48, 16, 16)
    found = results_and_gradients(convolve, [operand.requires_grad_() for operand in operands], slope)
    exact = [operand.detach().double().requires_grad_() for operand in operands]
    expected = results_and_gradients(lambda x, w, b: F.conv2d(x, w, b, padding=1), exact, slope.double())
    for ours, theirs in zip(found, expected, strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-5


@pytest.mark.parametrize("compiled", [True, False])
def test_bfloat16_is_off_by_a_hundredth(compiled, monkeypatch):
    if not compiled:
        for module in (winograd, winograd_convolution):
            monkeypatch.setattr(module, "can_transform", lambda dtype: False)
    torch.manual_seed(0)
    operands = [torch.randn(40, 32, 16, 16), torch.randn(48, 32, 3, 3) / 17, torch.randn(48)]
    operands[0] = operands[0].bfloat16()
    slope = torch.randn(40, 48, 16, 16).bfloat16()
    found = results_and_gradients(convolve, [operand.requires_grad_() for operand in operands], slope)
    exact = [operand.detach().double().requires_grad_() for operand in operands]
    expected = results_and_gradients(lambda x, w, b: F.conv2d(x, w, b, padding=1), exact, slope.double())
    assert [each.dtype for each in found] == [torch.bfloat16, torch.bfloat16, torch.float32, torch.float32]
    for ours, theirs in zip(found, expected, strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < 0.02


@pytest.mark.parametrize("images", sorted(LAYOUTS))
@pytest.mark.parametrize("weight", sorted(LAYOUTS))
def test_the_layout_is_the_one_that_torch_would_give(images, weight):
    operands = torch.randn(2, 3, 5, 6), torch.randn(4, 3, 3, 3)
    x, w = (each.contiguous(memory_format=LAYOUTS[name]) for each, name in zip(operands, (images, weight), strict=True))
    assert convolve(x, w, None).stride() == F.conv2d(x, w, padding=1).stride()


def test_a_gradient_can_be_differentiated_again():
    torch.manual_seed(0)
    operands = [torch.randn(1, 2, 5, 2), torch.randn(1, 2, 3, 3), torch.randn(1)]
    operands = [operand.double().requires_grad_() for operand in operands]
    assert torch.autograd.gradcheck(convolve, operands)
    assert torch.autograd.gradgradcheck(convolve, operands)


def test_a_backward_pass_under_autocast_is_computed_as_elsewhere():
    torch.manual_seed(0)
    images, weight = torch.randn(2, 8, 8, 8).bfloat16(), torch.randn(8, 8, 3, 3, requires_grad=True)
    result = convolve(images, weight, None)
    slope = torch.randn_like(result)
    (expected,) = torch.autograd.grad(result, weight, slope, retain_graph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(convolve(images, weight, None), result)
        assert torch.equal(torch.autograd.grad(result, weight, slope)[0], expected)


def test_a_gradient_in_bfloat16_can_be_differentiated_again():
    torch.manual_seed(0)
    operands = [torch.randn(2, 3, 5, 6).bfloat16(), torch.randn(4, 3, 3, 3)]
    found = []
    for operation in (lambda x, w: convolve(x, w, None), lambda x, w: F.conv2d(x.float(), w, padding=1)):
        images, weight = (operand.clone().requires_grad_() for operand in operands)
        (on_weight,) = torch.autograd.grad(operation(images, weight).square().sum(), weight, create_graph=True)
        assert on_weight.dtype == torch.float32
        found.append(torch.autograd.grad(on_weight.square().sum(), images)[0].float())
    assert float((found[0] - found[1]).norm() / found[1].norm()) < 0.05


@given(*[st.integers(1, 300)] * 2, *[st.integers(1, 40)] * 2, st.booleans())
def test_what_pays_does_so_with_more_channels(inputs, outputs, height, width, compiled):
    if pays(inputs, outputs, height, width, compiled=compiled):
        assert pays(2 * inputs, outputs, height, width, compiled=compiled)
        assert pays(inputs, 2 * outputs, height, width, compiled=compiled)
        assert pays(inputs, outputs, height, width, compiled=True)


@pytest.mark.parametrize("compiled", [True, False])
def test_few_channels_and_small_maps_do_not_pay(compiled):
    assert pays(128, 128, 4, 4, compiled=compiled)
    assert pays(256, 256, 32, 32, compiled=compiled)
    assert pays(64, 64, 16, 16, compiled=compiled) is compiled
    assert not pays(3, 256, 32, 32, compiled=compiled)
    assert not pays(48, 48, 16, 16, compiled=compiled)
    assert not pays(512, 512, 2, 2, compiled=compiled)
