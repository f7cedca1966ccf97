"""Normalisations of the ConvNet that read channels-last maps as they lie, where torch's layers would not on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, channels_last, nn

_VECTOR = 16  # numbers of bfloat16 that the kernels of normalisation handle at once
_FOR_TWO_DERIVATIVES = ContextVar("_FOR_TWO_DERIVATIVES", default=False)


@contextmanager
def differentiated_twice() -> Iterator[None]:
    """For passes whose gradient is differentiated: torch's kernel of instance normalisation is the faster there."""
    token = _FOR_TWO_DERIVATIVES.set(True)
    try:
        yield
    finally:
        _FOR_TWO_DERIVATIVES.reset(token)


class InstanceNorm(nn.GroupNorm):
    """Instance normalisation with an affine map: group normalisation with as many groups as channels.

    On a CPU torch's kernel would turn channels-last maps into the other layout, one number at a time, and leave all
    that follows in it. Here pixels are brought to the front, all channels of a pixel at a time, and each channel of
    each image is one of batch normalisation's.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels)

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:  # noqa: A002, the name of nn.GroupNorm
        """Normalises each channel of each image over its pixels."""
        if torch.compiler.is_compiling() or _FOR_TWO_DERIVATIVES.get() or input.device.type != "cpu":
            return F.instance_norm(input, weight=self.weight, bias=self.bias, eps=self.eps)
        n, c, h, w = input.shape
        pixels = input.permute(2, 3, 0, 1).reshape(1, h, w, n * c).permute(0, 3, 1, 2)
        weight, bias = self.weight.repeat(n), self.bias.repeat(n)
        found = torch.batch_norm(pixels, weight, bias, None, None, True, 0.0, self.eps, False)
        return found.permute(0, 2, 3, 1).reshape(h, w, n, c).permute(2, 3, 0, 1).contiguous(memory_format=channels_last)


class GroupNorm(nn.GroupNorm):
    """Group normalisation that computes in float32 what torch's kernel is slow at.

    On a CPU it goes through channels-last maps of bfloat16 a number at a time where a group has few channels.
    """

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:  # noqa: A002, the name of nn.GroupNorm
        """Normalises each group of channels of each image."""
        if (
            self.num_channels // self.num_groups >= _VECTOR
            or (input.dtype, self.weight.dtype) != (torch.bfloat16, torch.float32)
            or input.device.type != "cpu"
            or torch.compiler.is_compiling()
        ):
            return super().forward(input)
        return super().forward(input.float()).bfloat16()


class LayerNorm(nn.LayerNorm):
    """Layer normalisation over channels and pixels, of maps in the order in which channels-last stores them."""

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:  # noqa: A002, the name of nn.LayerNorm
        """Normalises each image over all its numbers."""
        if torch.compiler.is_compiling():
            return super().forward(input)
        c, h, w = self.normalized_shape
        weight, bias = self.weight.permute(1, 2, 0), self.bias.permute(1, 2, 0)
        return F.layer_norm(input.permute(0, 2, 3, 1), (h, w, c), weight, bias, self.eps).permute(0, 3, 1, 2)
