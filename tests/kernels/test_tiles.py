"""The compiled transforms of Winograd's convolution against matrix products in double precision."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nasproxy.kernels.buffers import Buffers
from nasproxy.kernels.library import _library, kernels
from nasproxy.kernels.tiles import CompiledTransforms, can_transform
from nasproxy.training.winograd import WinogradConvolution
from nasproxy.training.winograd_transforms import TorchTransforms, tiles_of

if kernels() is None:
    pytest.skip("nasproxy was installed without a C compiler", allow_module_level=True)

OFF = {torch.float32: 2e-6, torch.bfloat16: 4e-3}


def compared(number, height, width, channels, dtype=torch.float32):
    """All four transforms, of random numbers: ours, and theirs in double precision."""
    maps = torch.randn(number, height, width, channels).to(dtype)
    points = torch.randn(36, number * tiles_of(height) * tiles_of(width), channels).to(dtype)
    bias, pairs = torch.randn(channels), []
    for transforms, wide in (
        (CompiledTransforms(Buffers(dtype)), dtype),
        (TorchTransforms(Buffers(torch.float64)), torch.float64),
    ):
        found = [transforms.see(maps.to(wide)).clone(), transforms.slopes(maps.to(wide)).clone()]
        for more in (bias, None):
            results = torch.full(maps.shape, torch.nan, dtype=wide)
            transforms.results(points.to(wide), more if more is None else more.to(results), results)
            found.append(results)
        images = torch.full(maps.shape, torch.nan, dtype=wide)
        transforms.back(points.to(wide), images)
        pairs.append([*found, images])
    return zip(*pairs, strict=True)


@pytest.mark.parametrize("dtype", OFF, ids=str)
@pytest.mark.parametrize("channels", [1, 31, 32, 33, 96])
@pytest.mark.parametrize("size", [(4, 8), (7, 5)], ids=str)
def test_they_are_those_of_matrix_products(dtype, channels, size):
    torch.manual_seed(0)
    for mine, other in compared(2, *size, channels, dtype):
        assert mine.dtype == dtype
        assert (mine.double() - other).norm() <= OFF[dtype] * other.norm()


@given(
    number=st.integers(1, 5),
    height=st.integers(1, 21),
    width=st.integers(1, 21),
    channels=st.integers(1, 70),
    seed=st.integers(0, 99),
)
def test_maps_of_any_shape_are_taken(number, height, width, channels, seed):
    torch.manual_seed(seed)
    for mine, other in compared(number, height, width, channels):
        assert (mine - other).norm() <= 4e-6 * other.norm()


@pytest.mark.parametrize("dtype", OFF, ids=str)
@pytest.mark.parametrize("images", [1, 7])
def test_another_thread_changes_nothing(dtype, images, monkeypatch):
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        torch.manual_seed(0)
        found.append([mine for mine, _ in compared(images, 168 // images, 24, 64, dtype)])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_threads_that_began_earlier_flush_denormal_numbers_as_the_caller_does():
    script = """
import torch
from nasproxy.kernels.buffers import Buffers
from nasproxy.kernels.tiles import CompiledTransforms
torch.set_num_threads(4)
images = torch.full((8, 64, 64, 32), 1e-40)
assert (images * 1.0).count_nonzero() == images.numel()
torch.set_flush_denormal(True)
transforms = CompiledTransforms(Buffers(torch.float32))
assert all((transforms.see(images).abs().double() > 0).sum() == 0 for _ in range(20))
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_view_of_other_signs_is_read_with_them():
    images = torch.randn(1, 4, 4, 2)
    turned = torch._neg_view(images)
    transforms = CompiledTransforms(Buffers(torch.float32))
    for name in ("see", "slopes"):
        expected = -getattr(transforms, name)(images).clone()
        torch.testing.assert_close(getattr(transforms, name)(turned), expected)
    with pytest.raises(ValueError, match="The kernels take"):
        transforms.results(torch._neg_view(torch.randn(36, 1, 2)), None, images)


@pytest.mark.parametrize("dtype", OFF, ids=str)
def test_processors_without_avx512_compute_the_same(dtype):
    found = []
    for narrower in (0, 1):
        _library().nasproxy_narrower(narrower)
        torch.manual_seed(0)
        try:
            found.append([mine for mine, _ in compared(3, 7, 9, 40, dtype)])
        finally:
            _library().nasproxy_narrower(0)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-5)


def test_maps_of_another_layout_are_read_and_written_where_they_lie():
    torch.manual_seed(0)
    maps, points = torch.randn(2, 6, 5, 3), torch.randn(36, 8, 3)
    turned = maps.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    transforms = CompiledTransforms(Buffers(torch.float32))
    assert torch.equal(transforms.see(maps).clone(), transforms.see(turned))
    assert torch.equal(transforms.slopes(maps).clone(), transforms.slopes(turned))
    for name, more in (("results", [None]), ("back", [])):
        whole, part = torch.empty_like(maps), torch.empty_like(turned)
        getattr(transforms, name)(points, *more, whole)
        getattr(transforms, name)(points, *more, part)
        assert not part.is_contiguous()
        assert torch.equal(whole, part)


def test_results_have_the_format_of_the_convolution():
    convolution = WinogradConvolution(torch.randn(3, 2, 3, 3), None, torch.bfloat16)
    assert convolution.forward(torch.randn(1, 4, 4, 2)).dtype == torch.bfloat16
    assert convolution.backward(torch.randn(1, 4, 4, 3)).dtype == torch.bfloat16


def test_sizes_that_do_not_belong_together_are_refused():
    transforms, maps = CompiledTransforms(Buffers(torch.float32)), torch.zeros(1, 4, 4, 2)
    results, back = (
        getattr(method, "__wrapped__", method) for method in (type(transforms).results, type(transforms).back)
    )
    for points in (torch.zeros(36, 2, 2), torch.zeros(36, 1, 3), torch.zeros(16, 1, 2)):
        with pytest.raises(ValueError, match="have points"):
            results(transforms, points, None, maps)
        with pytest.raises(ValueError, match="have points"):
            back(transforms, points, maps)
    with pytest.raises(ValueError, match="a bias of each channel"):
        results(transforms, torch.zeros(36, 1, 2), torch.zeros(1), maps)


@pytest.mark.parametrize(("dtype", "taken"), [(torch.float32, True), (torch.bfloat16, True), (torch.float64, False)])
def test_formats_that_they_take_are_theirs(dtype, taken):
    assert can_transform(dtype) is taken
    transforms = WinogradConvolution(torch.zeros(1, 1, 3, 3, dtype=dtype))._transforms
    assert isinstance(transforms, CompiledTransforms if taken else TorchTransforms)
