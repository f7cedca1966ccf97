"""The ConvNet of the paper (Gidaris & Komodakis 2018; Zhao, Mopuri & Bilen 2021, section 3.1), in all 720 variants."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, channels_last, nn

from nasproxy.errors import InputError, nearest
from nasproxy.networks.classifier import Classifier, Readout, extra_padding

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


NORMS: dict[str, Callable[[int, tuple[int, int]], nn.Module]] = {
    "none": lambda channels, size: nn.Identity(),  # noqa: ARG005, one signature for all
    "batch": lambda channels, size: nn.BatchNorm2d(channels),  # noqa: ARG005
    "layer": lambda channels, size: LayerNorm([channels, *size]),
    "instance": lambda channels, size: InstanceNorm(channels),  # noqa: ARG005
    "group": lambda channels, size: GroupNorm(4, channels),  # noqa: ARG005
}
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.01),
}
POOLINGS: dict[str, Callable[[], nn.Module]] = {
    "none": nn.Identity,
    "max": lambda: nn.MaxPool2d(2),
    "average": lambda: nn.AvgPool2d(2),
}


class ConvNet(Classifier):
    """``depth`` blocks of 3×3 convolution, normalisation, activation and 2×2 pooling, then one linear layer.

    28×28 images of one channel are padded to 32×32 by the first convolution, as the authors do.

    Args:
        in_channels: channels of an image.
        num_classes: number of logits.
        image_size: (height, width) in pixels.
        width: filters of each convolution.
        depth: number of blocks.
        norm: none, batch, layer (over channels and pixels), instance, or group (4 groups).
        activation: sigmoid, relu or leaky_relu (slope 0.01).
        pooling: none, max or average.

    Raises:
        InputError: a name is unknown, or the image is too small for this many poolings.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        image_size: tuple[int, int],
        *,
        width: int = 128,
        depth: int = 3,
        norm: str = "instance",
        activation: str = "relu",
        pooling: str = "average",
    ) -> None:
        for what, name, known in (
            ("norm", norm, NORMS),
            ("activation", activation, ACTIVATIONS),
            ("pooling", pooling, POOLINGS),
        ):
            if name not in known:
                raise InputError(f"No {what} is called {name!r}.", nearest(name, known))
        height, wide = image_size
        channels = in_channels
        blocks: list[nn.Module] = []
        for block in range(depth):
            padding = 1 + (extra_padding(in_channels, image_size) if block == 0 else 0)
            height, wide = height + 2 * padding - 2, wide + 2 * padding - 2
            blocks += [nn.Conv2d(channels, width, kernel_size=3, padding=padding), NORMS[norm](width, (height, wide))]
            blocks += [ACTIVATIONS[activation](), POOLINGS[pooling]()]
            channels = width
            if pooling != "none":
                height, wide = height // 2, wide // 2
            if min(height, wide) < 1:
                raise InputError(
                    f"An image of {image_size[0]}×{image_size[1]} pixels is too small for {depth} poolings, which take "
                    f"{2**depth}×{2**depth} or more.",
                    f"Resize the images with --image-size {2**depth}, or take fewer blocks or no pooling.",
                )
        super().__init__(nn.Sequential(*blocks), Readout(channels * height * wide, num_classes))
