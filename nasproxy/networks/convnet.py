"""The ConvNet of the paper (Gidaris & Komodakis 2018; Zhao, Mopuri & Bilen 2021, section 3.1), in all 720 variants."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, channels_last, nn

from nasproxy.errors import InputError, nearest
from nasproxy.networks.block import after_convolution, is_block_by_block
from nasproxy.networks.classifier import Classifier, Readout, extra_padding
from nasproxy.networks.norms import GroupNorm, InstanceNorm, LayerNorm

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

    def _maps(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n ..."]:
        if not is_block_by_block(self.features):
            return super()._maps(images)
        maps = images.contiguous(memory_format=channels_last)
        layers = iter(self.features)
        for convolution, norm, activation, pooling in zip(layers, layers, layers, layers, strict=True):
            maps = after_convolution(convolution(maps), norm, activation, pooling)
        return maps
