"""Normalisation, activation and pooling in one go, against torch's layers one after another, in double precision."""

from __future__ import annotations

import shutil

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from nasproxy.kernels import fused
from nasproxy.kernels.library import _library, kernels

EPS = 1e-5
NORMS = ("none", "given", "batch", "layer", "instance", "group")


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_the_kernels_are_there_where_there_is_a_compiler():
    assert kernels() is not None


if kernels() is None:
    pytest.skip("nasproxy was installed without a C compiler", allow_module_level=True)


def affine_shape(norm, maps):
    return (*maps.shape[2:], maps.shape[1]) if norm == "layer" else (maps.shape[1],)


def statistics(channels):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(channels, generator=generator), torch.rand(channels, generator=generator) + 0.5


def ours(norm, maps, scale, shift, activation, pooling):
    how = activation, pooling
    groups = {"layer": 1, "instance": maps.shape[1], "group": 2}
    if norm in groups:
        return fused.normalised_by_groups(maps, groups[norm], scale, shift, EPS, *how)
    if norm == "given":
        return fused.normalised_by(maps, *statistics(maps.shape[1]), scale, shift, EPS, *how)
    if norm == "batch":
        return fused.normalised_by_batch(maps, scale, shift, EPS, *how)[0]
    return fused.not_normalised(maps, *how)


def theirs(norm, maps, scale, shift, activation, pooling):
    if norm == "layer":
        found = F.layer_norm(maps, maps.shape[1:], scale.permute(2, 0, 1), shift.permute(2, 0, 1), EPS)
    elif norm in ("instance", "group"):
        found = F.group_norm(maps, maps.shape[1] if norm == "instance" else 2, scale, shift, EPS)
    elif norm == "batch":
        found = F.batch_norm(maps, None, None, scale, shift, training=True, eps=EPS)
    elif norm == "given":
        mean, variance = (value.to(maps.dtype) for value in statistics(maps.shape[1]))
        found = F.batch_norm(maps, mean, variance, scale, shift, eps=EPS)
    else:
        found = maps
    found = {"sigmoid": torch.sigmoid, "relu": F.relu, "leaky_relu": lambda x: F.leaky_relu(x, 0.01)}[activation](found)
    return {"none": lambda x: x, "max": lambda x: F.max_pool2d(x, 2), "average": lambda x: F.avg_pool2d(x, 2)}[pooling](
        found
    )


def compared(norm, maps, activation, pooling, dtype=torch.float32):
    """Results and gradients on maps, scale and shift: ours, and theirs in double precision."""
    maps = maps.to(dtype).contiguous(memory_format=torch.channels_last)
    scale, shift = torch.randn(affine_shape(norm, maps)) + 1, torch.randn(affine_shape(norm, maps))
    pairs, slope = [], None
    for compute, wide in ((ours, False), (theirs, True)):
        inputs = [value.double() if wide else value.clone() for value in (maps, scale, shift)]
        wanted = [value.requires_grad_() for value in inputs][: 1 if norm == "none" else 3]
        results = compute(norm, *inputs, activation, pooling)
        slope = torch.randn(results.shape).to(dtype) if slope is None else slope
        pairs.append([results.detach(), *torch.autograd.grad(results, wanted, slope.to(results.dtype))])
    return zip(*pairs, strict=True)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("activation", fused.ACTIVATIONS)
@pytest.mark.parametrize("pooling", fused.POOLINGS)
@pytest.mark.parametrize("size", [(8, 8), (5, 7)], ids=str)
@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 1e-5), (torch.bfloat16, 6e-3)], ids=["float32", "bfloat16"])
def test_results_and_gradients_are_those_of_the_layers(norm, activation, pooling, size, dtype, off):
    torch.manual_seed(0)
    if (activation, pooling, dtype) == ("sigmoid", "none", torch.bfloat16):
        off *= 5  # as torch's, the gradient is of the rounded result, of which 1 - y has few digits
    for mine, other in compared(norm, 2 * torch.randn(6, 12, *size) + 1, activation, pooling, dtype):
        assert mine.shape == other.shape
        assert (mine.double() - other).norm() <= off * other.norm()


@given(
    norm=st.sampled_from(NORMS),
    activation=st.sampled_from(fused.ACTIVATIONS),
    pooling=st.sampled_from(fused.POOLINGS),
    images=st.integers(1, 5),
    half=st.integers(1, 150),
    height=st.integers(2, 35),
    width=st.integers(2, 35),
    seed=st.integers(0, 99),
)
def test_maps_of_any_shape_are_taken(norm, activation, pooling, images, half, height, width, seed):
    torch.manual_seed(seed)
    maps = torch.randn(images, 2 * half, height, width) + torch.randn(2 * half, 1, 1)
    for mine, other in compared(norm, maps, activation, pooling):
        assert (mine - other).norm() <= 1e-4 * other.norm() + 1e-6


@pytest.mark.parametrize("norm", NORMS)
def test_another_thread_changes_nothing_but_the_order_of_a_sum(norm, monkeypatch):
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        torch.manual_seed(0)
        found.append([mine for mine, _ in compared(norm, torch.randn(7, 64, 24, 24), "relu", "average")])
    for one, other in zip(*found, strict=True):
        if norm == "layer":
            torch.testing.assert_close(one, other)
        else:
            assert torch.equal(one, other)


@pytest.mark.parametrize("pooling", fused.POOLINGS)
@pytest.mark.parametrize("activation", fused.ACTIVATIONS)
def test_equal_numbers_and_those_that_are_none_go_where_torch_sends_them(activation, pooling):
    """The first of the largest has the gradient; NaN is larger than all, and what it touches is NaN."""
    torch.manual_seed(0)
    maps = torch.randint(-1, 2, (3, 4, 6, 6)).float()
    maps[0, 0, 2, 3], maps[1, 1, 4, 4] = torch.nan, torch.inf
    found = []
    for compute in (ours, theirs):
        pixels = maps.clone().requires_grad_()
        results = compute("none", pixels, None, None, activation, pooling)
        found.append((results.detach(), *torch.autograd.grad(results.sum(), pixels)))
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other, equal_nan=True)


@pytest.mark.parametrize("activation", fused.ACTIVATIONS)
def test_extreme_numbers_saturate(activation):
    maps = torch.tensor([-3e38, -1e4, -90.0, -61.0, -1e-30, 0.0, 1e-30, 61.0, 90.0, 1e4, 3e38]).view(1, 1, 1, -1)
    mine, other = (compute("none", maps, None, None, activation, "none") for compute in (ours, theirs))
    torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-25)


@pytest.mark.parametrize("norm", NORMS)
def test_layouts_and_strides_are_of_no_account(norm):
    torch.manual_seed(0)
    maps = torch.randn(6, 8, 9, 12)[::2, ::2].detach()
    scale, shift = (torch.randn(affine_shape(norm, maps)).requires_grad_() for _ in range(2))
    found = []
    for laid in (maps, maps.contiguous(), maps.contiguous(memory_format=torch.channels_last)):
        pixels = laid.requires_grad_()
        results = ours(norm, pixels, scale, shift, "relu", "max")
        assert results.is_contiguous(memory_format=torch.channels_last)
        slope = torch.arange(results.numel()).view(results.shape).float()
        found.append((results.detach(), *torch.autograd.grad(results, pixels, slope)))
    for other in found[1:]:
        assert all(torch.equal(*pair) for pair in zip(found[0], other, strict=True))


def test_batch_statistics_are_those_of_the_images():
    maps = torch.randn(5, 6, 4, 3, generator=torch.Generator().manual_seed(0)) * 3 + 100
    _, mean, variance = fused.normalised_by_batch(maps, torch.ones(6), torch.zeros(6), EPS, "relu", "none")
    torch.testing.assert_close(mean, maps.double().mean(dim=(0, 2, 3)).float())
    torch.testing.assert_close(variance, maps.double().var(dim=(0, 2, 3), correction=0).float())


def test_maps_far_from_zero_lose_nothing_to_it():
    maps = 1000 + torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    for norm in ("instance", "group", "batch"):
        mine = ours(norm, maps, torch.ones(4), torch.zeros(4), "leaky_relu", "none")
        other = theirs(norm, maps.double(), torch.ones(4).double(), torch.zeros(4).double(), "leaky_relu", "none")
        torch.testing.assert_close(mine.double(), other, rtol=0, atol=1e-3)


@pytest.mark.parametrize("shape", [(3,), (5,), (2, 2, 4)], ids=str)
def test_parameters_of_other_maps_are_refused(shape):
    maps = torch.randn(2, 4, 3, 3)
    with pytest.raises(ValueError, match="take scale and shift of"):
        fused.normalised_by_groups(maps, 4, torch.ones(shape), torch.zeros(shape), EPS, "relu", "none")
    with pytest.raises(ValueError, match="in 3 groups"):
        fused.normalised_by_groups(maps, 3, torch.ones(4), torch.zeros(4), EPS, "relu", "none")


@pytest.mark.parametrize("norm", NORMS)
def test_a_second_derivative_is_refused(norm):
    maps = torch.randn(3, 4, 5, 6, requires_grad=True)
    scale, shift = (torch.ones(affine_shape(norm, maps)) for _ in range(2))
    results = ours(norm, maps, scale, shift, "sigmoid", "none")
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(results.square().sum(), maps, create_graph=True)


def test_maps_that_were_changed_since_are_noticed():
    maps = torch.randn(2, 4, 3, 3, requires_grad=True)
    inner = maps.contiguous(memory_format=torch.channels_last) * 1
    results = ours("instance", inner, torch.ones(4), torch.zeros(4), "relu", "none")
    inner.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        results.sum().backward()


def test_given_statistics_may_change_before_the_pass_back():
    maps, mean, variance = torch.randn(2, 4, 3, 3, requires_grad=True), torch.zeros(4), torch.ones(4)
    results = fused.normalised_by(maps, mean, variance, torch.ones(4), torch.zeros(4), EPS, "relu", "none")
    mean.add_(100)
    (slope,) = torch.autograd.grad(results.sum(), maps)
    torch.testing.assert_close(slope, (maps > 0).float())


@pytest.mark.parametrize("spread", [1e-3, 1e-2])
@pytest.mark.parametrize("norm", NORMS[2:])
def test_small_variances_are_kept_from_zero(norm, spread):
    maps = spread * torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    shape = affine_shape(norm, maps)
    mine, other = (
        compute(norm, maps.to(dtype), torch.ones(shape).to(dtype), torch.zeros(shape).to(dtype), "leaky_relu", "none")
        for compute, dtype in ((ours, torch.float32), (theirs, torch.float64))
    )
    torch.testing.assert_close(mine.double(), other, rtol=1e-4, atol=1e-5)
    given = fused.normalised_by(
        maps, torch.zeros(4), torch.zeros(4), torch.ones(4), torch.zeros(4), EPS, "relu", "none"
    )
    torch.testing.assert_close(given, (maps / EPS**0.5).relu())


def test_bfloat16_is_rounded_to_the_nearest_and_ties_to_even():
    numbers = torch.arange(0, 2**16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    maps = numbers[numbers.isfinite()].view(-1, 1, 1, 1).expand(-1, 4, 1, 1)
    factors = torch.tensor([1.0, 1 + 2**-8, 1 + 2**-9, 0.7])  # times a number of 8 digits, these meet ties
    zeros = torch.zeros(4)
    found = fused.normalised_by(maps, zeros, torch.ones(4), factors, zeros, 0.0, "relu", "none")
    expected = (maps.float() * factors.view(1, 4, 1, 1)).relu().bfloat16()
    assert torch.equal(found, expected)


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7FFFFFFF, -1], ids=hex)
def test_what_is_no_number_stays_none(bits):
    nan = torch.tensor([bits], dtype=torch.int32).view(torch.float32)
    zeros, ones = torch.zeros(1), torch.ones(1)
    found = fused.normalised_by(torch.ones(1, 1, 1, 1).bfloat16(), zeros, ones, ones, nan, EPS, "leaky_relu", "none")
    assert found.isnan().all()


def test_results_do_not_depend_on_the_default_format():
    maps = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    for norm in NORMS:
        expected = ours(norm, maps, *(torch.ones(affine_shape(norm, maps)) for _ in range(2)), "relu", "max")
        scale, shift = (torch.ones(affine_shape(norm, maps)) for _ in range(2))
        pixels = maps.clone().requires_grad_()
        given = statistics(4)
        torch.set_default_dtype(torch.float64)
        try:
            if norm == "given":
                found = fused.normalised_by(pixels, *given, scale, shift, EPS, "relu", "max")
            else:
                found = ours(norm, pixels, scale, shift, "relu", "max")
            (slope,) = torch.autograd.grad(found.sum(), pixels)
        finally:
            torch.set_default_dtype(torch.float32)
        assert torch.equal(found, expected)
        assert slope.dtype == torch.float32


@pytest.mark.parametrize(
    ("threads", "numbers", "parts"), [(1, 2**20, 1), (2, 2**20, 2), (2, 2**16, 1), (8, 3 * 2**16, 3), (4, 2**6, 1)]
)
def test_large_maps_are_shared_among_threads(threads, numbers, parts, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    tail = fused._tail(torch.empty(numbers // 64, 1, 8, 8), 0, torch.ones(1), torch.zeros(1), "relu", "none")
    assert (tail.threads, tail.parts) == (threads, parts)


def test_a_view_of_other_signs_is_left_to_the_layers():
    maps = torch.randn(1, 2, 4, 4)
    with fused.fused_maps():
        assert fused.can_fuse(maps)
        assert not fused.can_fuse(torch._neg_view(maps))


@pytest.mark.parametrize("norm", NORMS)
def test_processors_without_avx512_compute_the_same(norm):
    found = []
    for narrower in (0, 1):
        _library().nasproxy_narrower(narrower)
        torch.manual_seed(0)
        try:
            found.append([mine for mine, _ in compared(norm, torch.randn(3, 20, 7, 9), "sigmoid", "average")])
        finally:
            _library().nasproxy_narrower(0)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
