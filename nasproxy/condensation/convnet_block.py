"""A block of the default ConvNet, written out: its passes forward and back, and the tangents of both.

Maps are rows: (images, height, width, channels) in memory. A convolution's bias is left out, because normalisation
takes it away again: its gradient is zero. A tangent is how a quantity changes as the parameters do along a direction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nasproxy.networks.convnet import InstanceNorm
from nasproxy.training.lowered_convolution import is_few_pixels, lowered_pixels, weight_gradient
from nasproxy.training.precision import has_amx, in_bfloat16, is_direct
from nasproxy.training.torch_convolution import torch_gradients
from nasproxy.training.winograd import WinogradConvolution
from nasproxy.training.winograd_convolution import pays


class _Convolution(Protocol):
    def forward(self, images: Float[Tensor, "n h w i"]) -> Float[Tensor, "n h2 w2 o"]: ...

    def backward(self, slope: Float[Tensor, "n h2 w2 o"]) -> Float[Tensor, "n h w i"]: ...

    def gradient(self) -> Float[Tensor, "o i 3 3"]: ...


class _FirstConvolution:
    """As :class:`WinogradConvolution`, a product of matrices; it passes no gradient on.

    It keeps nine times the images: few channels are supposed, as images have.
    """

    def __init__(self, convolution: nn.Conv2d, dtype: torch.dtype) -> None:
        weight = convolution.weight.detach().permute(2, 3, 1, 0)
        self._shape, self._padding = weight.shape, int(convolution.padding[0])
        self._weight = weight.reshape(-1, weight.shape[-1]).to(dtype)
        self._seen = self._weight
        self._slope = torch.zeros_like(self._weight, dtype=weight.dtype)

    def forward(self, images: Float[Tensor, "n h w i"]) -> Float[Tensor, "n h2 w2 o"]:
        number, *size, _ = images.shape
        height, width = (side + 2 * self._padding - 2 for side in size)
        self._seen = lowered_pixels(images.permute(0, 3, 1, 2).to(self._weight.dtype), self._padding)
        return (self._seen.T @ self._weight).view(number, height, width, -1).to(self._slope.dtype)

    def backward(self, slope: Float[Tensor, "n h2 w2 o"]) -> Float[Tensor, "n h2 w2 o"]:
        self._slope += self._seen @ slope.view(-1, slope.shape[-1]).to(self._weight.dtype)
        return slope

    def gradient(self) -> Float[Tensor, "o i 3 3"]:
        return self._slope.view(self._shape).permute(3, 2, 0, 1)


class _PlainConvolution:
    """As :class:`WinogradConvolution`, by torch's kernels; the first of a network passes no gradient on.

    Args:
        convolution: its present weight counts.
        dtype: to compute in.
        lowers: whether the weight's gradient of few pixels is a product of matrices.
        is_first: of the network.
    """

    def __init__(self, convolution: nn.Conv2d, dtype: torch.dtype, *, lowers: bool, is_first: bool) -> None:
        self._weight = convolution.weight.detach().to(dtype, memory_format=torch.channels_last)
        self._padding, self._lowers, self._is_first = int(convolution.padding[0]), lowers, is_first
        self._tiles = dtype == torch.bfloat16 and has_amx()
        self._seen = self._weight
        self._slope = torch.zeros_like(convolution.weight)

    def forward(self, images: Float[Tensor, "n h w i"]) -> Float[Tensor, "n h2 w2 o"]:
        self._seen = images.to(self._weight.dtype).permute(0, 3, 1, 2)
        results = F.conv2d(self._seen, self._weight, padding=self._padding)
        return results.permute(0, 2, 3, 1).to(self._slope.dtype).contiguous()

    def backward(self, slope: Float[Tensor, "n h2 w2 o"]) -> Float[Tensor, "n h w i"]:
        results = slope.to(self._weight.dtype).permute(0, 3, 1, 2)
        lowered = self._lowers and is_few_pixels(self._seen, self._weight, tiles=self._tiles)
        wanted = (not self._is_first, not lowered, False)
        back, on_weight, _ = torch_gradients(results, self._seen, self._weight, wanted, padding=self._padding)
        self._slope += weight_gradient(results, self._seen) if on_weight is None else on_weight
        return slope if back is None else back.permute(0, 2, 3, 1).to(slope.dtype)

    def gradient(self) -> Float[Tensor, "o i 3 3"]:
        return self._slope


Directions = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]
"""Tangents of a convolution's weight and bias and of a normalisation's scale and shift; None is zero."""


@dataclass(frozen=True)
class _Back:
    """Of a pass back, what its tangent needs.

    Args:
        on_maps: gradient on what ReLU takes.
        along: mean over pixels of its product with the normalised maps.
        on_results: gradient on the convolution's results.
    """

    on_maps: Float[Tensor, "n pixels o"]
    along: Float[Tensor, "n 1 o"]
    on_results: Float[Tensor, "n h w o"]


class Block:
    """Convolution, instance normalisation, ReLU and average pooling; after each forward pass, one backward.

    Args:
        convolution: its present weight counts.
        norm: likewise.
        precision: of the convolution.
        size: (height, width) of its results.
        is_first: of the network.
        keeps: what tangents need, which then follow the passes in the same order; convolutions are torch's but for
            the first.
    """

    def __init__(
        self,
        convolution: nn.Conv2d,
        norm: InstanceNorm,
        precision: str,
        size: tuple[int, int],
        *,
        is_first: bool,
        keeps: bool,
    ) -> None:
        weight = convolution.weight.detach()
        dtype = torch.bfloat16 if in_bfloat16(precision) else weight.dtype
        self._padding, self._keeps = int(convolution.padding[0]), keeps
        self._weight = weight
        self._convolution: _Convolution
        if is_direct(precision):
            self._convolution = _PlainConvolution(convolution, dtype, lowers=False, is_first=is_first)
        elif is_first:
            self._convolution = _FirstConvolution(convolution, dtype)
        elif keeps or in_bfloat16(precision) or not pays(weight.shape[1], len(weight), *size):
            self._convolution = _PlainConvolution(convolution, dtype, lowers=True, is_first=False)
        else:
            self._convolution = WinogradConvolution(weight)
        self._scale, self._shift, self._eps = norm.weight.detach(), norm.bias.detach(), norm.eps
        self._on_scale, self._on_shift = torch.zeros_like(self._scale), torch.zeros_like(self._shift)

    def forward(self, images: Float[Tensor, "n h w i"]) -> Float[Tensor, "n h2 w2 o"]:
        """The results."""
        if self._keeps:
            self._images = images
        maps = self._convolution.forward(images)
        number, height, width, channels = maps.shape
        centred = maps.view(number, height * width, channels)
        centred -= centred.mean(dim=1, keepdim=True)
        self._rate = (centred.square().mean(dim=1, keepdim=True) + self._eps).rsqrt_()
        self._centred = centred
        active = torch.addcmul(self._shift, centred, self._scale * self._rate).clamp_(min=0)
        self._active = active.view(number, height // 2, 2, width // 2, 2, channels)
        return F.avg_pool2d(active.view(maps.shape).permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)

    def backward(self, slope: Float[Tensor, "n h2 w2 o"]) -> Float[Tensor, "n h w i"]:
        """Adds to the gradients those of the last :meth:`forward`, given the results'; returns the images'."""
        on_maps = self._unpooled(slope)
        # With x the normalised maps: the mean of their gradient, and of its product with x, have no effect on x.
        mean = on_maps.mean(dim=1, keepdim=True)
        along = (on_maps * self._centred).mean(dim=1, keepdim=True) * self._rate
        pixels = self._centred.shape[1]
        self._on_shift += pixels * mean.sum(dim=(0, 1))
        self._on_scale += pixels * along.sum(dim=(0, 1))
        steep = self._scale * self._rate
        on_results = torch.addcmul(-steep * mean, on_maps, steep)
        on_results.addcmul_(self._centred, -steep * along * self._rate)
        number, height, width, channels = slope.shape
        on_results = on_results.view(number, 2 * height, 2 * width, channels)
        if self._keeps:
            self._back = _Back(on_maps, along, on_results)
        return self._convolution.backward(on_results)

    def forward_tangent(
        self, images: Float[Tensor, "n h w i"] | None, directions: Directions
    ) -> Float[Tensor, "n h2 w2 o"]:
        """The tangent of the last :meth:`forward`'s results, given those of images (None is zero) and parameters."""
        weight, _, scale, shift = directions
        self._weight_tangent = torch.zeros_like(self._weight) if weight is None else weight
        self._scale_tangent = scale
        tangent = self._both(self._convolve, images, self._images).view_as(self._centred)
        tangent -= tangent.mean(dim=1, keepdim=True)
        # With x the normalised maps: of the centred maps' tangent, the part along x has no effect on x.
        self._spread = (tangent * self._centred).mean(dim=1, keepdim=True) * self._rate
        tangent.addcmul_(self._centred, -self._spread * self._rate)
        self._tangent = tangent.mul_(self._rate)
        active = self._tangent * self._scale
        if scale is not None:
            active.addcmul_(self._centred, scale * self._rate)
        if shift is not None:
            active += shift
        active = torch.ops.aten.threshold_backward(active, self._active.view_as(active), 0)
        number, height, _, width, _, channels = self._active.shape
        maps = active.view(number, 2 * height, 2 * width, channels)
        return F.avg_pool2d(maps.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)

    def backward_tangent(self, slope: Float[Tensor, "n h2 w2 o"]) -> Float[Tensor, "n h w i"]:
        """The tangent of what the last :meth:`backward` returned, given that of what it was given.

        Images and parameters have those of the last :meth:`forward_tangent`.
        """
        back = self._back
        tangent = self._unpooled(slope).mul_(self._scale)
        if self._scale_tangent is not None:
            tangent.addcmul_(back.on_maps, self._scale_tangent)
        along = (tangent * self._centred).mean(dim=1, keepdim=True) * self._rate
        along += (back.on_maps * self._tangent).mean(dim=1, keepdim=True) * self._scale
        tangent -= tangent.mean(dim=1, keepdim=True)
        tangent.addcmul_(self._centred, -self._rate * along)
        tangent.addcmul_(self._tangent, -self._scale * back.along)
        tangent.addcmul_(back.on_results.view_as(tangent), -self._spread)
        tangent.mul_(self._rate)
        return self._both(self._convolve_back, tangent.view(back.on_results.shape), back.on_results)

    def gradients(self) -> list[Tensor]:
        """Of the convolution's weight and bias, and of the normalisation's scale and shift."""
        return [self._convolution.gradient(), torch.zeros_like(self._shift), self._on_scale, self._on_shift]

    def _unpooled(self, slope: Float[Tensor, "n h2 w2 o"]) -> Float[Tensor, "n pixels o"]:
        """The gradient on what goes into ReLU, given that of the average pooling's results."""
        number, height, width, channels = slope.shape
        spread = (slope / 4).view(number, height, 1, width, 1, channels).expand_as(self._active)
        found: Tensor = torch.ops.aten.threshold_backward(spread, self._active, 0)
        return found.view_as(self._centred)

    def _both(
        self, convolve: Callable[[Tensor, Tensor], Tensor], tangent: Tensor | None, value: Tensor
    ) -> Float[Tensor, "n h w c"]:
        """The tangent of a convolution: of the weight, by what goes in, and of what goes in, by the weight."""
        found = convolve(value, self._weight_tangent)
        return found if tangent is None else found.add_(convolve(tangent, self._weight))

    def _convolve(
        self, images: Float[Tensor, "n h w i"], weight: Float[Tensor, "o i 3 3"]
    ) -> Float[Tensor, "n h2 w2 o"]:
        maps = F.conv2d(images.permute(0, 3, 1, 2), weight, padding=self._padding)
        return maps.permute(0, 2, 3, 1).contiguous()

    def _convolve_back(
        self, slope: Float[Tensor, "n h2 w2 o"], weight: Float[Tensor, "o i 3 3"]
    ) -> Float[Tensor, "n h w i"]:
        images, maps = (rows.permute(0, 3, 1, 2) for rows in (self._images, slope))
        back, _, _ = torch_gradients(maps, images, weight, (True, False, False), padding=self._padding)
        assert back is not None
        return back.permute(0, 2, 3, 1).contiguous()
