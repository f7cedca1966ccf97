"""Convolutions as a product of matrices: torch's results, layouts and gradients, and where they stand in its place."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from convolutions import LAYOUTS, results_and_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nasproxy.training.convolution import FastConvolutions
from nasproxy.training.lowered_convolution import is_few_channels, is_few_pixels, of_few_channels, of_few_pixels
from nasproxy.training.precision import autocast

CPU = torch.device("cpu")
KINDS = ["channels", "pixels"]


def operation(kind, padding):
    return partial(of_few_channels, padding=padding) if kind == "channels" else of_few_pixels


def operands_of(kind, number, channels, size, *, layout="last", biased=True, dtype=torch.float64, padding=1):
    torch.manual_seed(number)
    inputs, outputs = channels
    grown = [side + 2 * padding - 2 for side in size]
    images, weight, slope = (
        torch.randn(shape, dtype=dtype).contiguous(memory_format=LAYOUTS[layout])
        for shape in ((number, inputs, *size), (outputs, inputs, 3, 3), (number, outputs, *grown))
    )
    bias = torch.randn(outputs, dtype=dtype) if biased else None
    if kind == "pixels":
        images.requires_grad_()
    for each in (weight, bias):
        if each is not None:
            each.requires_grad_()
    return [images, weight, bias], slope


@given(
    kind=st.sampled_from(KINDS),
    number=st.integers(1, 9),
    channels=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    biased=st.booleans(),
    layout=st.sampled_from(sorted(LAYOUTS)),
    padding=st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_results_and_gradients_are_those_of_the_plain_sum(kind, number, channels, size, biased, layout, padding):
    padding = 1 if kind == "pixels" else padding
    operands, slope = operands_of(kind, number, channels, size, layout=layout, biased=biased, padding=padding)
    found = results_and_gradients(operation(kind, padding), operands, slope)
    expected = results_and_gradients(lambda x, w, b: F.conv2d(x, w, b, padding=padding), operands, slope)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("frozen", ["weight", "bias"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_frozen_has_no_gradient(kind, frozen):
    (images, weight, bias), slope = operands_of(kind, 3, (2, 4), (4, 4))
    (weight if frozen == "weight" else bias).requires_grad_(False)
    found = results_and_gradients(operation(kind, 1), [images, weight, bias], slope)
    expected = results_and_gradients(lambda x, w, b: F.conv2d(x, w, b, padding=1), [images, weight, bias], slope)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_is_off_by_as_much_as_torchs(kind):
    shape = ((3, 32), (16, 16)) if kind == "channels" else ((64, 32), (4, 4))
    (images, weight, bias), slope = operands_of(kind, 40, *shape, dtype=torch.float32)
    images = images.detach().bfloat16().requires_grad_(kind == "pixels")
    slope = slope.bfloat16()
    exact = [each.detach().double().requires_grad_(each.requires_grad) for each in (images, weight, bias)]
    expected = results_and_gradients(lambda x, w, b: F.conv2d(x, w, b, padding=1), exact, slope.double())
    found = results_and_gradients(operation(kind, 1), [images, weight, bias], slope)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torchs = results_and_gradients(lambda x, w, b: F.conv2d(x, w, b, padding=1), [images, weight, bias], slope)
    assert [each.dtype for each in found] == [each.dtype for each in torchs]
    for ours, theirs, true in zip(found, torchs, expected, strict=True):
        assert float((ours - true).norm()) < max(1.1 * float((theirs - true).norm()), 1e-4 * float(true.norm()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_can_be_differentiated_again(kind):
    (images, weight, bias), _ = operands_of(kind, 1, (2, 1), (3, 2))
    assert torch.autograd.gradcheck(operation(kind, 1), [images, weight, bias])
    assert torch.autograd.gradgradcheck(operation(kind, 1), [images, weight, bias])


@pytest.mark.parametrize("padding", [1, 3])
@pytest.mark.parametrize("images", sorted(LAYOUTS))
@pytest.mark.parametrize("weight", sorted(LAYOUTS))
@pytest.mark.parametrize(("channels", "width"), [(1, 63), (1, 64), (3, 191), (3, 192), (4, 300)])
@torch.no_grad()
def test_few_channels_are_taken_where_their_layout_is_torchs(channels, width, images, weight, padding):
    x = nn.Parameter(torch.randn(2, channels, 5, 6)).to(memory_format=LAYOUTS[images])
    layer = nn.Conv2d(channels, width, 3, padding=padding).to(memory_format=LAYOUTS[weight])
    outside = layer(x)
    taken = is_few_channels(x, layer.weight, (padding, padding))
    assert taken == (width in (64, 192) and outside.is_contiguous(memory_format=torch.channels_last))
    with autocast("float32", CPU):
        found = layer(x)
    assert found.stride() == outside.stride()
    torch.testing.assert_close(found, outside)
    assert torch.equal(found, of_few_channels(x, layer.weight, layer.bias, padding=padding) if taken else outside)


def test_few_channels_are_torchs_where_the_images_have_a_gradient():
    layer = nn.Conv2d(3, 192, 3, padding=1).to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 5, 6)
    assert is_few_channels(images, layer.weight, (1, 1))
    assert not is_few_channels(images.requires_grad_(), layer.weight, (1, 1))
    with torch.no_grad():
        assert is_few_channels(images, layer.weight, (1, 1))
    for padding in ((0, 0), (1, 2), "valid"):
        assert not is_few_channels(images.detach(), layer.weight, padding)


@pytest.mark.parametrize(
    ("inputs", "side", "tiles", "taken"),
    [
        (256, 2, False, True),
        (255, 2, False, False),
        (256, 3, False, False),
        (256, 4, True, True),
        (256, 5, True, False),
    ],
)
def test_few_pixels_are_more_where_whole_tiles_are_multiplied(inputs, side, tiles, taken):
    layer, images = nn.Conv2d(inputs, 64, 3, padding=1), torch.randn(2, inputs, side, side)
    assert is_few_pixels(images, layer.weight, tiles=tiles) == taken
    with FastConvolutions(amx=tiles), torch.autocast("cpu", dtype=torch.bfloat16, enabled=tiles):
        result = layer(images)
    assert ("OfFewPixels" in type(result.grad_fn).__name__) == taken


def test_autocast_asks_the_processor(monkeypatch):
    layer, images = nn.Conv2d(256, 64, 3, padding=1), torch.randn(2, 256, 3, 3)
    for precision, amx in (("bfloat16", True), ("bfloat16", False), ("float32", True)):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx, raising=False)
        with autocast(precision, CPU):
            taken = "OfFewPixels" in type(layer(images).grad_fn).__name__
        assert taken == (precision == "bfloat16" and amx)
