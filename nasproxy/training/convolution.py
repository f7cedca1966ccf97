"""Faster convolutions in place of a network's own on a CPU, for as long as a context lasts. No network is changed.

Nearly all multiplications of a ConvNet are 3×3 convolutions. Wide ones torch computes as fast as the processor
multiplies: what is left to save are multiplications. Those of few channels, or of few pixels, leave most of the
processor idle: a product of matrices does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from nasproxy.kernels.library import can_run
from nasproxy.training import lowered_convolution, winograd_convolution

_Convolve = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class FastConvolutions(TorchFunctionMode):
    """The context in which convolutions are computed in the fastest way that is known here, and else by torch.

    That is, of float32 or autocast to bfloat16 on a CPU, 3×3, with stride 1, neither dilated nor grouped. It looks at
    shapes, formats and layouts, and never at a clock: scores do not depend on how fast a machine is.

    Args:
        amx: whether the processor multiplies whole tiles of matrices in bfloat16. There Winograd's transforms would
            take longer than what they save, and lowered maps may be larger.
        exact: whether Winograd's errors, which in bfloat16 are about twice torch's, are too large.
    """

    def __init__(self, *, amx: bool, exact: bool = False) -> None:
        super().__init__()
        self._amx, self._exact = amx, exact

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Called by torch in place of each of its functions."""
        named = kwargs or {}
        if func is torch.conv2d and not torch.compiler.is_compiling():
            convolve = self._chosen(*args, **named)
            if convolve is not None:
                images, weight, bias = _operands(*args, **named)
                return convolve(images.bfloat16() if torch.is_autocast_enabled("cpu") else images, weight, bias)
        return func(*args, **named)

    def _chosen(
        self,
        input: Any,  # noqa: A002, torch's name
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> _Convolve | None:
        """What computes that which ``torch.conv2d`` was asked for; None leaves it to torch."""
        tensors = [input, weight] if bias is None else [input, weight, bias]
        if not (
            all(type(tensor) in (Tensor, torch.nn.Parameter) for tensor in tensors)
            and all(tensor.device.type == "cpu" for tensor in tensors)
            and _is_taken_format(*tensors)
            and input.dim() == 4
            and len(input) > 0
            and weight.shape == (len(weight), input.shape[1], 3, 3)
            and _pair(stride) == _pair(dilation) == (1, 1)
            and groups == 1
            and (bias is None or bias.shape == (len(weight),))
            and not torch._C._are_functorch_transforms_active()  # what torch.autograd.Function itself asks
        ):
            return None
        pads = (1, 1) if padding == "same" else _pair(padding)
        if lowered_convolution.is_few_channels(input, weight, pads):
            return partial(lowered_convolution.of_few_channels, padding=pads[0])
        if pads != (1, 1):
            return None
        narrow = torch.is_autocast_enabled("cpu")
        tiles = self._amx and narrow
        if (
            not tiles
            and not (self._exact and narrow)
            and winograd_convolution.pays(input.shape[1], len(weight), *input.shape[2:], compiled=can_run())
        ):
            return winograd_convolution.convolve
        few = lowered_convolution.is_few_pixels(input, weight, tiles=tiles)
        return lowered_convolution.of_few_pixels if few else None


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
    return tuple(value) * (2 // max(1, len(value))) if isinstance(value, (tuple, list)) else (value, value)
