"""3×3 convolutions by Winograd's algorithm as an operation of torch, and where it pays.

It saves multiplications. Transforms cost in turn, in proportion to the channels' number and not to its square, so that
wide layers gain most.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import FunctionCtx

from nasproxy.kernels.tiles import can_transform
from nasproxy.training.torch_convolution import Gradients, is_channels_last, torch_gradients
from nasproxy.training.winograd import WinogradConvolution
from nasproxy.training.winograd_transforms import tiles_of

# In multiplications of a convolution by torch, measured on CPUs with AVX-512: what one of Winograd's takes (matrices
# are smaller), and what transforming one number takes; compiled, where an image has more than one tile.
_PRODUCT, _TRANSFORM, _COMPILED = 1.5, 80, 65


def convolve(
    images: Float[Tensor, "n i h w"], weight: Float[Tensor, "o i 3 3"], bias: Float[Tensor, " o"] | None
) -> Float[Tensor, "n o h w"]:
    """``F.conv2d(images, weight, bias, padding=1)`` but for rounding, in the layout that it would have.

    It is computed in the format of the images, which may be narrower than the weight's; gradients have each their own.
    A gradient that is to be differentiated again is computed by torch's own kernels.
    """
    with torch.autocast("cpu", enabled=False):  # or what is to be exact would be rounded too
        result: Tensor = _Convolution.apply(images, weight, bias)
    return result


def pays(inputs: int, outputs: int, height: int, width: int, *, compiled: bool = False) -> bool:
    """Whether Winograd's convolution of an image is the faster one.

    Args:
        inputs: channels of the images.
        outputs: channels of the results.
        height: of images and results.
        width: likewise.
        compiled: whether transforms are those of :class:`CompiledTransforms`.
    """
    tiles = tiles_of(height) * tiles_of(width)
    transform = _COMPILED if compiled and tiles > 1 else _TRANSFORM
    ours = 36 * tiles * (_PRODUCT * inputs * outputs + transform * (inputs + outputs))
    return ours < 9 * height * width * inputs * outputs


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(images, weight)
        last = is_channels_last(images) or is_channels_last(weight)
        number, _, height, width = images.shape
        layout = torch.channels_last if last else torch.contiguous_format
        results = torch.empty((number, len(weight), height, width), dtype=images.dtype, memory_format=layout)
        convolution = WinogradConvolution(weight, bias, images.dtype)
        tiles = _tiles_at_once(images, weight)
        for part, into in zip(_chunks(images, tiles), _chunks(results, tiles), strict=True):
            convolution.forward(part, into)
        return results

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Gradients:
        images, weight = ctx.saved_tensors
        to_images, to_weight, to_bias = ctx.needs_input_grad
        if torch.is_grad_enabled():
            return torch_gradients(slope, images, weight, ctx.needs_input_grad)
        on_images = torch.empty_like(images)
        tiles = _tiles_at_once(images, weight)
        parts = (_chunks(each, tiles) for each in (images, slope, on_images))
        with torch.autocast("cpu", enabled=False):
            convolution = WinogradConvolution(weight, dtype=images.dtype)
            for part, on_results, back in zip(*parts, strict=True):
                convolution.see(part)
                convolution.backward(on_results, back)
            return (
                on_images if to_images else None,
                convolution.gradient() if to_weight else None,
                convolution.bias_gradient() if to_bias else None,
            )


def _tiles_at_once(images: Float[Tensor, "n i h w"], weight: Float[Tensor, "o i 3 3"]) -> int:
    """Of the images that are in work at a time.

    Compiled transforms read and write memory once, and what takes longest beside products is to begin them, and to add
    up weights' gradients. Others want to stay in cache; in bfloat16 adding up takes longest.
    """
    if can_transform(images.dtype):
        return 512
    return 128 if images.dtype == weight.dtype else 2 * max(weight.shape[:2])


def _chunks(images: Float[Tensor, "n c h w"], tiles: int) -> list[Float[Tensor, "k h w c"]]:
    """A few images at a time, channels last in order if not in memory; all but the last of one size."""
    number, _, height, width = images.shape
    chunks = -(-number // max(1, tiles // (tiles_of(height) * tiles_of(width))))
    return list(images.permute(0, 2, 3, 1).split(-(-number // chunks)))
