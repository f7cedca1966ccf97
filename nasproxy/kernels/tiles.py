"""The transforms of Winograd's F(4×4, 3×3) by the kernels of ``winograd.c``: each one pass over memory.

As matrix products (:mod:`nasproxy.training.winograd_transforms`) they are four, and take longer than the convolution's
own products up to some 200 channels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from nasproxy.kernels.buffers import Buffers
from nasproxy.kernels.library import Tiled, can_run, kernels, shares


def can_transform(dtype: torch.dtype) -> bool:
    """Whether the kernels are there, can use as many threads as torch, and take numbers of this format."""
    return dtype in (torch.float32, torch.bfloat16) and can_run()


class CompiledTransforms:
    """As ``TorchTransforms``, for formats of which :func:`can_transform` says so. They compute in float32.

    Args:
        buffers: where what is returned is kept until the next call.
    """

    def __init__(self, buffers: Buffers) -> None:
        found = kernels()
        assert found is not None, "can_transform says no"
        self._buffers, self._kernels = buffers, found

    def see(self, images: Float[Tensor, "n h w i"]) -> Float[Tensor, "36 t i"]:
        """Overlapping tiles of 6×6 pixels, transformed."""
        return self._to_points("see", images, buffer="seen")

    def results(
        self, products: Float[Tensor, "36 t o"], bias: Float[Tensor, " o"] | None, into: Float[Tensor, "n h w o"]
    ) -> None:
        """The pixels of products, and a bias added."""
        if bias is not None and bias.shape != into.shape[3:]:
            raise ValueError(f"Maps of {tuple(into.shape)} take a bias of each channel, got {tuple(bias.shape)}.")
        self._to_maps("results", products, None if bias is None else bias.float().contiguous(), into=into)

    def slopes(self, on_results: Float[Tensor, "n h w o"]) -> Float[Tensor, "36 t o"]:
        """The gradient on products from that on results."""
        return self._to_points("slopes", on_results, buffer="products")

    def back(self, on_seen: Float[Tensor, "36 t i"], into: Float[Tensor, "n h w i"]) -> None:
        """The gradient on images from that on tiles seen, which overlap."""
        self._to_maps("back", on_seen, into=into)

    def _to_points(self, name: str, maps: Float[Tensor, "n h w c"], *, buffer: str) -> Float[Tensor, "36 t c"]:
        maps = maps.to(self._buffers.dtype).resolve_neg().contiguous()
        tiled = _tiled(maps)
        points = self._buffers.take(buffer, *_points(tiled))
        self._kernels(name, tiled, maps, points)
        return points

    def _to_maps(self, name: str, points: Tensor, *more: Tensor | None, into: Float[Tensor, "n h w c"]) -> None:
        maps = into if into.is_contiguous() else torch.empty_like(into, memory_format=torch.contiguous_format)
        self._kernels(name, _tiled(maps, points), points, *more, maps)
        if maps is not into:
            into.copy_(maps)


def _tiled(maps: Float[Tensor, "n h w c"], points: Tensor | None = None) -> Tiled:
    """Of maps, and points of their tiles, whose places in memory are given to the kernels, which cannot see sizes."""
    images, height, width, channels = maps.shape
    down, across = -(-height // 4), -(-width // 4)
    tiled = Tiled(
        images=images,
        height=height,
        width=width,
        channels=channels,
        down=down,
        across=across,
        apart=images * down * across * channels,
        narrow=maps.dtype == torch.bfloat16,
        **shares(maps.numel()),
    )
    if points is not None and points.shape != _points(tiled):
        raise ValueError(f"Maps of {tuple(maps.shape)} have points {_points(tiled)}, got {tuple(points.shape)}.")
    return tiled


def _points(tiled: Tiled) -> tuple[int, int, int]:
    return 36, tiled.images * tiled.down * tiled.across, tiled.channels
