"""Normalisation, activation and 2×2 pooling of maps in one go on a CPU, in place of torch's layers.

torch computes one after another, each from memory to memory, which takes as long as the convolutions where a processor
multiplies matrices fast. The kernels of ``maps.c`` read and write maps once each way (batch normalisation: twice), and
compute in float32; only rounding differs. Their gradients cannot be differentiated again: passes whose gradients are,
those of synthetic images, are not within :func:`fused_maps`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from jaxtyping import Float, Float32
from torch import Tensor, channels_last

from nasproxy.kernels.library import Kernels, Tail, can_run, kernels, shares

ACTIVATIONS = ("sigmoid", "relu", "leaky_relu")
"""In the order of ``maps.c``, as are the poolings; the slope of leaky_relu is 0.01."""
POOLINGS = ("none", "max", "average")

_FUSED = ContextVar("_FUSED", default=False)


@contextmanager
def fused_maps() -> Iterator[None]:
    """For passes whose normalisations, activations and poolings are to be computed together, where they can be."""
    token = _FUSED.set(True)
    try:
        yield
    finally:
        _FUSED.reset(token)


def is_wanted() -> bool:
    """Whether this is within :func:`fused_maps`, and the kernels are there and can use as many threads as torch."""
    return (
        _FUSED.get()
        and can_run()
        and not torch.compiler.is_compiling()
        # Who keeps what is saved in another way, as checkpoints do, may compute it again where this is not wanted.
        and torch._C._autograd._top_saved_tensors_default_hooks(False) is None
    )


def can_fuse(maps: Tensor) -> bool:
    """Whether :func:`is_wanted`, and the kernels can take these maps."""
    return (
        is_wanted()
        and type(maps) is Tensor
        and maps.device.type == "cpu"
        and maps.dtype in (torch.float32, torch.bfloat16)
        and maps.dim() == 4
        and maps.numel() > 0
        and not maps.is_neg()
        and not torch._C._are_functorch_transforms_active()  # what torch.autograd.Function itself asks
    )


def normalised_by_groups(
    maps: Float[Tensor, "n c h w"],
    groups: int,
    scale: Float32[Tensor, "*each"],
    shift: Float32[Tensor, "*each"],
    eps: float,
    activation: str,
    pooling: str,
) -> Float[Tensor, "n c h2 w2"]:
    """The pooled activations of maps whose groups of channels are normalised, in each image over its pixels.

    Args:
        maps: of which :func:`can_fuse` says that they can be taken; so for all functions here.
        groups: of channels. As many as channels are instance normalisation, one is layer normalisation.
        scale: of normalised maps; of each channel (c), or of each pixel and channel (h, w, c).
        shift: is added then.
        eps: is added to variances.
        activation: one of :data:`ACTIVATIONS`.
        pooling: one of :data:`POOLINGS`.

    Raises:
        ValueError: scale or shift are not of these maps, or groups do not divide their channels.
    """
    rows = maps.contiguous(memory_format=channels_last)
    found: Tensor = _ByGroups.apply(rows, scale.contiguous(), shift.contiguous(), groups, eps, activation, pooling)
    return found


def normalised_by_batch(
    maps: Float[Tensor, "n c h w"],
    scale: Float32[Tensor, " c"],
    shift: Float32[Tensor, " c"],
    eps: float,
    activation: str,
    pooling: str,
) -> tuple[Float[Tensor, "n c h2 w2"], Float32[Tensor, " c"], Float32[Tensor, " c"]]:
    """The pooled activations of maps whose channels are normalised over all images; and their means and variances.

    Variances are those of the images themselves, not estimates. Arguments are those of :func:`normalised_by_groups`.
    """
    rows = maps.contiguous(memory_format=channels_last)
    scale, shift = scale.contiguous(), shift.contiguous()
    with torch.no_grad():
        n, _, h, w = rows.shape
        means, squares = _numbers(rows), _numbers(rows)
        _kernels()("moments", _tail(rows, 0, scale, shift, activation, pooling), rows, means, squares)
        mean = means.mean(dim=0)
        variance = (squares.sum(dim=0) / (h * w) + (means - mean).square_().sum(dim=0)) / n
    rate = (variance + eps).rsqrt_()
    found: Tensor = _ByGiven.apply(rows, scale, shift, mean, rate, eps, activation, pooling)
    return found, mean, variance


def normalised_by(
    maps: Float[Tensor, "n c h w"],
    mean: Float32[Tensor, " c"],
    variance: Float32[Tensor, " c"],
    scale: Float32[Tensor, " c"],
    shift: Float32[Tensor, " c"],
    eps: float,
    activation: str,
    pooling: str,
) -> Float[Tensor, "n c h2 w2"]:
    """The pooled activations of maps whose channels are normalised by given means and variances, which are constant."""
    rate = (variance + eps).rsqrt()  # the mean is copied, as running ones change before a pass back
    rows, affine = maps.contiguous(memory_format=channels_last), (scale.contiguous(), shift.contiguous())
    kept = mean.clone(memory_format=torch.contiguous_format)
    found: Tensor = _ByGiven.apply(rows, *affine, kept, rate.contiguous(), None, activation, pooling)
    return found


def not_normalised(maps: Float[Tensor, "n c h w"], activation: str, pooling: str) -> Float[Tensor, "n c h2 w2"]:
    """The pooled activations of maps as they are."""
    zeros = maps.new_zeros(maps.shape[1], dtype=torch.float32)
    rows, ones = maps.contiguous(memory_format=channels_last), torch.ones_like(zeros)
    found: Tensor = _ByGiven.apply(rows, ones, zeros, zeros, ones, None, activation, pooling)
    return found


class _ByGroups(torch.autograd.Function):
    """Maps are channels-last, scale and shift lie in the order of their dimensions."""

    @staticmethod
    def forward(
        ctx: Any,
        maps: Tensor,
        scale: Tensor,
        shift: Tensor,
        groups: int,
        eps: float,
        activation: str,
        pooling: str,
    ) -> Tensor:
        tail = _tail(maps, groups, scale, shift, activation, pooling, eps)
        mean, rate, results = _numbers(maps), _numbers(maps), _results(maps, pooling)
        _kernels()("forward", tail, maps, mean, rate, scale, shift, results)
        ctx.save_for_backward(maps, scale, shift, mean, rate, _needed(results, activation, pooling))
        ctx.tail = tail
        return results

    @staticmethod
    def backward(ctx: Any, on_results: Tensor) -> tuple[Any, Any, Any, None, None, None, None]:
        _check_once()
        maps, scale, shift, mean, rate, results = ctx.saved_tensors
        on_results = on_results.contiguous(memory_format=channels_last)
        on_maps, sums, along = torch.empty_like(maps), _numbers(maps), _numbers(maps)
        per_pixel = ctx.tail.per_pixel
        on_scale, on_shift = (torch.zeros_like(scale), torch.zeros_like(shift)) if per_pixel else (None, None)
        arguments = (on_results, maps, results, mean, rate, scale, shift, sums, along, on_scale, on_shift, on_maps)
        _kernels()("backward", ctx.tail, *arguments)
        if not per_pixel:
            on_scale, on_shift = along.sum(dim=0), sums.sum(dim=0)
        return on_maps, on_scale, on_shift, None, None, None, None


class _ByGiven(torch.autograd.Function):
    """By mean and rate of each channel. With ``eps`` these are the maps' own, and change with them; else it is None."""

    @staticmethod
    def forward(
        ctx: Any,
        maps: Tensor,
        scale: Tensor,
        shift: Tensor,
        mean: Tensor,
        rate: Tensor,
        eps: float | None,
        activation: str,
        pooling: str,
    ) -> Tensor:
        tail, results = _tail(maps, 0, scale, shift, activation, pooling), _results(maps, pooling)
        _kernels()("forward", tail, maps, mean, rate, scale, shift, results)
        ctx.save_for_backward(maps, scale, shift, mean, rate, _needed(results, activation, pooling))
        ctx.tail, ctx.eps = tail, eps
        return results

    @staticmethod
    def backward(ctx: Any, on_results: Tensor) -> tuple[Any, Any, Any, None, None, None, None, None]:
        _check_once()
        maps, scale, shift, mean, rate, results = ctx.saved_tensors
        on_results, on_maps = on_results.contiguous(memory_format=channels_last), torch.empty_like(maps)
        given = (on_results, maps, results, mean, rate, scale, shift)
        on_scale = on_shift = sums = along = None
        if ctx.eps is not None or any(ctx.needs_input_grad[1:3]):
            of_images, along_images = _numbers(maps), _numbers(maps)
            _kernels()("sums", ctx.tail, *given, of_images, along_images)
            on_scale, on_shift = along_images.sum(dim=0), of_images.sum(dim=0)
            if ctx.eps is not None:
                count = maps.numel() // maps.shape[1]
                sums, along = on_shift * scale / count, on_scale * scale / count
        _kernels()("backward", ctx.tail, *given, sums, along, None, None, on_maps)
        return on_maps, on_scale, on_shift, None, None, None, None, None


def _check_once() -> None:
    """Refuses a gradient with a graph: torch's ``once_differentiable`` would leave it out of a sum in silence."""
    if torch.is_grad_enabled():
        raise RuntimeError("Fused maps have no second derivative; compute the pass outside of fused_maps().")


def _kernels() -> Kernels:
    found = kernels()
    assert found is not None, "can_fuse says no"
    return found


def _tail(
    maps: Tensor, groups: int, scale: Tensor, shift: Tensor, activation: str, pooling: str, eps: float = 0.0
) -> Tail:
    """Of maps and parameters whose places in memory are given to the kernels, which cannot see their sizes."""
    images, channels, height, width = maps.shape
    per_pixel = groups > 0 and scale.dim() == 3
    shape = (height, width, channels) if per_pixel else (channels,)
    if scale.shape != shape or shift.shape != shape or (groups and channels % groups):
        raise ValueError(
            f"Maps of {tuple(maps.shape)} in {groups} groups take scale and shift of {shape}, got {tuple(scale.shape)}"
            f" and {tuple(shift.shape)}."
        )
    return Tail(
        images=images,
        height=height,
        width=width,
        channels=channels,
        groups=groups,
        activation=ACTIVATIONS.index(activation),
        pooling=POOLINGS.index(pooling),
        narrow=maps.dtype == torch.bfloat16,
        per_pixel=per_pixel,
        **shares(maps.numel()),
        eps=eps,
    )


def _numbers(maps: Tensor) -> Float32[Tensor, "n c"]:
    """Room for a number of each image and channel."""
    return maps.new_empty(maps.shape[:2], dtype=torch.float32)


def _results(maps: Tensor, pooling: str) -> Tensor:
    n, c, h, w = maps.shape
    size = (h, w) if pooling == "none" else (h // 2, w // 2)
    return torch.empty((n, c, *size), dtype=maps.dtype, device=maps.device, memory_format=channels_last)


def _needed(results: Tensor, activation: str, pooling: str) -> Tensor | None:
    """The results, if the gradient is worked out from them."""
    return results if (activation, pooling) == ("sigmoid", "none") else None
