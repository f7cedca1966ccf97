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

from nasproxy.networks.norms import InstanceNorm
from nasproxy.training.lowered_convolution import is_few_pixels, lowered_pixels, weight_gradient
from nasproxy.training.torch_convolution import torch_gradients


class _Convolution(Protocol):
    """``backward`` gives the gradient on images (None of the network's own) and on the weight."""

    def forward(self, images: Float[Tensor, "n h w i"]) -> Float[Tensor, "n h2 w2 o"]: ...

    def backward(self, slope: Float[Tensor, "n h2 w2 o"]) -> tuple[Tensor | None, Float[Tensor, "o i 3 3"]]: ...


class _FirstConvolution:
    """A product of matrices.

    It keeps nine times the images: few channels are supposed, as images have.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        weight = convolution.weight.detach().permute(2, 3, 1, 0)
        self._shape, self._padding = weight.shape, int(convolution.padding[0])
        self._weight = weight.reshape(-1, weight.shape[-1])
        self._seen = self._weight

    def forward(self, images: Float[Tensor, "n h w i"]) -> Float[Tensor, "n h2 w2 o"]:
        number, *size, _ = images.shape
        height, width = (side + 2 * self._padding - 2 for side in size)
        self._seen = lowered_pixels(images.permute(0, 3, 1, 2), self._padding)
        return (self._seen.T @ self._weight).view(number, height, width, -1)

    def backward(self, slope: Float[Tensor, "n h2 w2 o"]) -> tuple[None, Float[Tensor, "o i 3 3"]]:
        on_weight = self._seen @ slope.view(-1, slope.shape[-1])
        return None, on_weight.view(self._shape).permute(3, 2, 0, 1)


class _PlainConvolution:
    """By torch's kernels, but that the weight's gradient of few pixels is a product of matrices."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        self._weight = convolution.weight.detach().contiguous(memory_format=torch.channels_last)
        self._padding = int(convolution.padding[0])
        self._seen = self._weight

    def forward(self, images: Float[Tensor, "n h w i"]) -> Float[Tensor, "n h2 w2 o"]:
        self._seen = images.permute(0, 3, 1, 2)
        return F.conv2d(self._seen, self._weight, padding=self._padding).permute(0, 2, 3, 1).contiguous()

    def backward(self, slope: Float[Tensor, "n h2 w2 o"]) -> tuple[Tensor, Float[Tensor, "o i 3 3"]]:
        results = slope.permute(0, 3, 1, 2)
        wanted = (True, not is_few_pixels(self._seen, self._weight, tiles=False), False)
        back, on_weight, _ = torch_gradients(results, self._seen, self._weight, wanted, padding=self._padding)
        assert back is not None
        return back.permute(0, 2, 3, 1), weight_gradient(results, self._seen) if on_weight is None else on_weight


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
    """Convolution, instance normalisation, ReLU and average pooling: one pass forward, one back, then their tangents.

    Args:
        convolution: its present weight counts.
        norm: likewise.
        is_first: of the network.
    """

    def __init__(self, convolution: nn.Conv2d, norm: InstanceNorm, *, is_first: bool) -> None:
        self._padding, self._weight = int(convolution.padding[0]), convolution.weight.detach()
        kind = _FirstConvolution if is_first else _PlainConvolution
        self._convolution: _Convolution = kind(convolution)
        self._scale, self._shift, self._eps = norm.weight.detach(), norm.bias.detach(), norm.eps

    def forward(self, images: Float[Tensor, "n h w i"]) -> Float[Tensor, "n h2 w2 o"]:
        """The results."""
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

    def backward(self, slope: Float[Tensor, "n h2 w2 o"]) -> tuple[Tensor | None, list[Tensor]]:
        """The gradient on images (None of the first block), given the results'; and the parameters'.

        These are the convolution's weight and bias, and the normalisation's scale and shift.
        """
        on_maps = self._unpooled(slope)
        # With x the normalised maps: the mean of their gradient, and of its product with x, have no effect on x.
        mean = on_maps.mean(dim=1, keepdim=True)
        along = (on_maps * self._centred).mean(dim=1, keepdim=True) * self._rate
        pixels = self._centred.shape[1]
        steep = self._scale * self._rate
        on_results = torch.addcmul(-steep * mean, on_maps, steep)
        on_results.addcmul_(self._centred, -steep * along * self._rate)
        number, height, width, channels = slope.shape
        on_results = on_results.view(number, 2 * height, 2 * width, channels)
        self._back = _Back(on_maps, along, on_results)
        back, on_weight = self._convolution.backward(on_results)
        on_scale, on_shift = pixels * along.sum(dim=(0, 1)), pixels * mean.sum(dim=(0, 1))
        return back, [on_weight, torch.zeros_like(on_shift), on_scale, on_shift]

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
