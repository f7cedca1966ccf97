"""Winograd convolutions in place of a network's own on a CPU, for as long as a context lasts. No network is changed.

Nearly all multiplications of a ConvNet are 3×3 convolutions, and torch computes these as fast as the processor
multiplies: what is left to save are multiplications. Transforms cost in turn, in proportion to the channels' number
and not to its square, so that wide layers gain most.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.overrides import TorchFunctionMode

from nasproxy.training.winograd import WinogradConvolution, tiles_of

# In multiplications of a convolution by torch, measured on a CPU with AVX-512 (AMD EPYC): what one of Winograd's takes
# (its matrices are smaller), and what transforming one number takes.
_PRODUCT, _TRANSFORM = 1.5, 80

_Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


class WinogradConvolutions(TorchFunctionMode):
    """The context in which convolutions are Winograd's if that pays, see :func:`pays`, and else torch's.

    That is, of float32 or autocast to bfloat16 on a CPU, 3×3, with stride 1 and padding 1, neither dilated nor grouped.
    It looks at shapes alone, so that a network is computed in the same way on every machine.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Called by torch in place of each of its functions."""
        named = kwargs or {}
        if func is torch.conv2d and not torch.compiler.is_compiling() and _is_taken(*args, **named):
            images, weight, bias = _operands(*args, **named)
            return convolve(images.bfloat16() if torch.is_autocast_enabled("cpu") else images, weight, bias)
        return func(*args, **named)


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


def pays(inputs: int, outputs: int, height: int, width: int) -> bool:
    """Whether Winograd's convolution of an image is the faster one.

    Args:
        inputs: channels of the images.
        outputs: channels of the results.
        height: of images and results.
        width: likewise.
    """
    numbers = 36 * tiles_of(height) * tiles_of(width)  # that a channel's transform has
    ours = _PRODUCT * numbers * inputs * outputs + _TRANSFORM * numbers * (inputs + outputs)
    return ours < 9 * height * width * inputs * outputs


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(images, weight)
        last = _is_channels_last(images) or _is_channels_last(weight)
        number, _, height, width = images.shape
        layout = torch.channels_last if last else torch.contiguous_format
        results = torch.empty((number, len(weight), height, width), dtype=images.dtype, memory_format=layout)
        convolution = WinogradConvolution(weight, bias, images.dtype)
        tiles = _tiles_at_once(images, weight)
        for part, into in zip(_chunks(images, tiles), _chunks(results, tiles), strict=True):
            convolution.forward(part, into)
        return results

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> _Gradients:
        images, weight = ctx.saved_tensors
        to_images, to_weight, to_bias = ctx.needs_input_grad
        if torch.is_grad_enabled():
            return _differentiable_gradients(slope, images, weight, list(ctx.needs_input_grad))
        on_images = torch.empty_like(images)
        tiles = _tiles_at_once(images, weight)
        parts = (_chunks(each, tiles) for each in (images, slope, on_images))
        with torch.autocast("cpu", enabled=False):
            convolution = WinogradConvolution(weight, dtype=images.dtype)
            for part, on_results, back in zip(*parts, strict=True):
                convolution.see(part)
                back.copy_(convolution.backward(on_results))
            return (
                on_images if to_images else None,
                convolution.gradient() if to_weight else None,
                convolution.bias_gradient() if to_bias else None,
            )


def _differentiable_gradients(slope: Tensor, images: Tensor, weight: Tensor, wanted: list[bool]) -> _Gradients:
    biases, ones, zeros = [len(weight)], [1, 1], [0, 0]
    found: _Gradients = torch.ops.aten.convolution_backward(
        slope, images, weight.to(images.dtype), biases, ones, ones, ones, False, zeros, 1, wanted
    )
    return found


def _is_taken(
    input: Any,  # noqa: A002, torch's name
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> bool:
    """Whether ``torch.conv2d`` was asked for what is computed here, and that pays."""
    tensors = [input, weight] if bias is None else [input, weight, bias]
    return (
        all(type(tensor) in (Tensor, torch.nn.Parameter) for tensor in tensors)
        and all(tensor.device.type == "cpu" for tensor in tensors)
        and _is_taken_format(*tensors)
        and input.dim() == 4
        and len(input) > 0
        and weight.shape == (len(weight), input.shape[1], 3, 3)
        and (padding == "same" or _pair(padding) == (1, 1))
        and _pair(stride) == _pair(dilation) == (1, 1)
        and groups == 1
        and pays(input.shape[1], len(weight), *input.shape[2:])
        and not torch._C._are_functorch_transforms_active()  # what torch.autograd.Function itself asks
    )


def _is_taken_format(images: Tensor, *parameters: Tensor) -> bool:
    if any(parameter.dtype != torch.float32 for parameter in parameters):
        return False
    if torch.is_autocast_enabled("cpu"):
        narrow = torch.get_autocast_dtype("cpu") == torch.bfloat16
        return narrow and images.dtype in (torch.bfloat16, torch.float32)
    return images.dtype == torch.float32


def _operands(
    input: Tensor,  # noqa: A002, torch's name
    weight: Tensor,
    bias: Tensor | None = None,
    *rest: Any,  # noqa: ARG001, what every convolution that is taken has in common
    **others: Any,  # noqa: ARG001
) -> tuple[Tensor, Tensor, Tensor | None]:
    return input, weight, bias


def _pair(value: Any) -> tuple[Any, ...]:
    return tuple(value) * (2 // len(value)) if isinstance(value, (tuple, list)) else (value, value)


def _is_channels_last(tensor: Tensor) -> bool:
    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


def _tiles_at_once(images: Float[Tensor, "n i h w"], weight: Float[Tensor, "o i 3 3"]) -> int:
    """Of the images that are in work at a time, as many as stay in cache.

    In bfloat16 what takes longest on the way is not to multiply but to add up weights' gradients, once for each part.
    """
    return 128 if images.dtype == weight.dtype else 2 * max(weight.shape[:2])


def _chunks(images: Float[Tensor, "n c h w"], tiles: int) -> list[Float[Tensor, "k h w c"]]:
    """A few images at a time, channels last in order if not in memory; all but the last of one size."""
    number, _, height, width = images.shape
    chunks = -(-number // max(1, tiles // (tiles_of(height) * tiles_of(width))))
    return list(images.permute(0, 2, 3, 1).split(-(-number // chunks)))
