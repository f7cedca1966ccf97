"""3×3 convolutions as a product of matrices, where torch's kernels leave most of the processor idle.

Lowered, or im2col (Chellapilla, Puri & Simard 2006): the nine pixels that each result is made of are copied side by
side. That takes nine times the memory, and pays where there is little of it: for images of three colours at the most,
and for weights' gradients where maps are of few pixels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import FunctionCtx

from nasproxy.training.torch_convolution import Gradients, is_channels_last, torch_gradients

# What pays, measured in float32 and bfloat16, without and with AMX: copies are in proportion to the channels that come
# in, and so are worth it where many go out; of a map's pixels there may be more where whole tiles are multiplied.
_CHANNELS, _OUTPUTS_FOR_EACH = 3, 64
_PIXELS, _PIXELS_BY_TILES, _WEIGHTS = 4, 16, 128 * 128


def is_few_channels(images: Float[Tensor, "n i h w"], weight: Float[Tensor, "o i 3 3"], padding: Any) -> bool:
    """Whether :func:`of_few_channels` is the faster one.

    Args:
        images: that the gradient must not be asked of.
        weight: of the convolution.
        padding: (height, width), as ``torch.conv2d`` takes it.
    """
    outputs, inputs = weight.shape[:2]
    asked = images.requires_grad and torch.is_grad_enabled()
    last = is_channels_last(images) or is_channels_last(weight)  # so that the product lies as the results must
    worth = inputs <= _CHANNELS and outputs >= _OUTPUTS_FOR_EACH * inputs
    return worth and last and not asked and padding in [(pads, pads) for pads in range(1, 4)]


def is_few_pixels(images: Float[Tensor, "n i h w"], weight: Float[Tensor, "o i 3 3"], *, tiles: bool) -> bool:
    """Whether :func:`of_few_pixels` is the faster one.

    Args:
        images: to be convolved with padding 1.
        weight: of the convolution.
        tiles: whether the processor multiplies whole tiles of matrices in the format of the convolution.
    """
    outputs, inputs = weight.shape[:2]
    most = _PIXELS_BY_TILES if tiles else _PIXELS
    return images.shape[2] * images.shape[3] <= most and inputs * outputs >= _WEIGHTS


def of_few_channels(
    images: Float[Tensor, "n i h w"],
    weight: Float[Tensor, "o i 3 3"],
    bias: Float[Tensor, " o"] | None,
    *,
    padding: int,
) -> Float[Tensor, "n o h2 w2"]:
    """``F.conv2d`` but for rounding, in the format of the images, its results channels-last."""
    with torch.autocast("cpu", enabled=False):
        result: Tensor = _OfFewChannels.apply(images, weight, bias, padding)
    return result


def of_few_pixels(
    images: Float[Tensor, "n i h w"], weight: Float[Tensor, "o i 3 3"], bias: Float[Tensor, " o"] | None
) -> Float[Tensor, "n o h w"]:
    """``F.conv2d(images, weight, bias, padding=1)`` in the format of the images; the weight's gradient is lowered."""
    with torch.autocast("cpu", enabled=False):
        result: Tensor = _OfFewPixels.apply(images, weight, bias)
    return result


class _OfFewChannels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.padding = padding
        outputs, inputs = weight.shape[:2]
        lowered = lowered_pixels(images, padding, ones=bias is not None)
        rows = weight.permute(2, 3, 1, 0).reshape(9 * inputs, outputs)
        rows = rows if bias is None else torch.cat([rows, bias[None]])
        number, _, height, width = images.shape
        size = (number, outputs, height + 2 * padding - 2, width + 2 * padding - 2)
        # No view of the product: what follows may write in place.
        results = torch.empty(size, dtype=images.dtype, memory_format=torch.channels_last)
        torch.mm(lowered.T, rows.to(images.dtype), out=results.permute(0, 2, 3, 1).view(-1, outputs))
        return results

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        images, weight = ctx.saved_tensors
        _, to_weight, to_bias, _ = ctx.needs_input_grad
        if torch.is_grad_enabled():
            wanted = (False, to_weight, to_bias)
            return *torch_gradients(slope, images, weight, wanted, padding=ctx.padding), None
        outputs, inputs = weight.shape[:2]
        with torch.autocast("cpu", enabled=False):
            lowered = lowered_pixels(images, ctx.padding, ones=to_bias)
            found = (lowered @ slope.permute(0, 2, 3, 1).reshape(-1, outputs)).to(weight.dtype)
        on_weight = found[: 9 * inputs].view(3, 3, inputs, outputs).permute(3, 2, 0, 1)
        return None, on_weight if to_weight else None, found[-1] if to_bias else None, None


class _OfFewPixels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(images, weight)
        narrow = None if bias is None else bias.to(images.dtype)
        return F.conv2d(images, weight.to(images.dtype), narrow, padding=1)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Gradients:
        images, weight = ctx.saved_tensors
        to_images, to_weight, to_bias = ctx.needs_input_grad
        if torch.is_grad_enabled():
            return torch_gradients(slope, images, weight, (to_images, to_weight, to_bias))
        on_images = on_weight = on_bias = None
        with torch.autocast("cpu", enabled=False):
            if to_images:
                on_images, _, _ = torch_gradients(slope, images, weight, (True, False, False))
            if to_weight:
                on_weight = weight_gradient(slope, images).to(weight.dtype)
            if to_bias:
                on_bias = slope.sum((0, 2, 3), dtype=weight.dtype)
        return on_images, on_weight, on_bias


def weight_gradient(slope: Float[Tensor, "n o h w"], images: Float[Tensor, "n i h w"]) -> Float[Tensor, "o i 3 3"]:
    """Of a convolution with padding 1, in the format of both.

    Args:
        slope: gradient of the results.
        images: that were convolved.
    """
    outputs, inputs = slope.shape[1], images.shape[1]
    pixels = _patches(images.contiguous(memory_format=torch.channels_last), 1).permute(0, 2, 3, 4, 5, 1)
    rows = slope.permute(0, 2, 3, 1).reshape(-1, outputs)
    found = rows.T @ pixels.reshape(len(rows), -1)
    return found.view(outputs, 3, 3, inputs).permute(0, 3, 1, 2)


def lowered_pixels(
    images: Float[Tensor, "n i h w"], padding: int, *, ones: bool = False
) -> Float[Tensor, "rows pixels"]:
    """A row for each of the 9 pixels of each channel, and one of ones for the bias, if asked."""
    pixels = _patches(images.contiguous(), padding).permute(4, 5, 1, 0, 2, 3)
    count = pixels[0, 0].numel() // images.shape[1]
    lowered = images.new_ones(9 * images.shape[1] + ones, count)
    lowered[: 9 * images.shape[1]].view(pixels.shape).copy_(pixels)
    return lowered


def _patches(images: Float[Tensor, "n i h w"], padding: int) -> Float[Tensor, "n i h2 w2 3 3"]:
    """The pixels around each, in the memory of the padded images."""
    return F.pad(images, [padding] * 4).unfold(2, 3, 1).unfold(3, 3, 1)
