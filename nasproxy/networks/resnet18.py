"""ResNet-18 (He, Zhang, Ren & Sun 2016) for small images, as Zhao, Mopuri & Bilen (2021) use it."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from nasproxy.networks.classifier import Classifier, Readout, too_small
from nasproxy.networks.convnet import NORMS

_STAGES = (64, 128, 256, 512)
"""Filters of the two blocks of each stage; all but the first stage halve the image."""
_SMALLEST = 9  # of 8×8 a single pixel is left, whose instance norm is nothing

Norm = Callable[[int], nn.Module]


class ResNet18(Classifier):
    """A 3×3 stem of 64 filters, four stages of two residual blocks, the mean over pixels, one linear layer.

    Args:
        in_channels: channels of an image.
        num_classes: number of logits.
        image_size: (height, width) in pixels, 9 or more on one side.
        norm: ``instance``, or ``batch``, which the paper condenses with.
        strided: False puts a convolution of stride 1 and 2×2 average pooling in the place of each convolution of
            stride 2. The paper condenses with these: more pixels then have a gradient. The pooling follows the
            convolution immediately, as the paper words it; the authors' code pools after ReLU, and leaves out the
            mean over pixels.

    Raises:
        InputError: the image is smaller.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        image_size: tuple[int, int],
        *,
        norm: str = "instance",
        strided: bool = True,
    ) -> None:
        if max(image_size) < _SMALLEST:
            raise too_small("ResNet-18", image_size, _SMALLEST)

        def normalised(channels: int) -> nn.Module:
            return NORMS[norm](channels, image_size)

        channels = _STAGES[0]
        layers: list[nn.Module] = [_convolution(in_channels, channels, 3), normalised(channels), nn.ReLU()]
        for filters in _STAGES:
            for halve in (filters != channels, False):
                layers.append(ResidualBlock(channels, filters, normalised, halve=halve, strided=strided))
                channels = filters
        layers.append(nn.AdaptiveAvgPool2d(1))
        super().__init__(nn.Sequential(*layers), Readout(channels, num_classes))


class ResidualBlock(nn.Module):
    """Two normalised 3×3 convolutions beside a shortcut, which is a 1×1 convolution where the shape changes.

    Args:
        in_channels: of the input.
        filters: of both convolutions.
        norm: makes a normalisation of so many channels.
        halve: height and width, rounded up.
        strided: how; see :class:`ResNet18`.
    """

    def __init__(self, in_channels: int, filters: int, norm: Norm, *, halve: bool, strided: bool) -> None:
        super().__init__()
        first = _halving(in_channels, filters, 3, strided) if halve else _convolution(in_channels, filters, 3)
        self.branch = nn.Sequential(first, norm(filters), nn.ReLU(), _convolution(filters, filters, 3), norm(filters))
        self.shortcut: nn.Module = nn.Identity()
        if halve:
            self.shortcut = nn.Sequential(_halving(in_channels, filters, 1, strided), norm(filters))
        self.activation = nn.ReLU()

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n filters height width"]:
        """The sum of branch and shortcut, after ReLU."""
        activated: Tensor = self.activation(self.branch(images) + self.shortcut(images))
        return activated


def _halving(in_channels: int, filters: int, kernel: int, strided: bool) -> nn.Module:
    if strided:
        return _convolution(in_channels, filters, kernel, stride=2)
    # Rounded up like a strided convolution, so that both see images of the same sizes.
    return nn.Sequential(_convolution(in_channels, filters, kernel), nn.AvgPool2d(2, ceil_mode=True))


def _convolution(in_channels: int, filters: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """No bias: a normalisation follows."""
    return nn.Conv2d(in_channels, filters, kernel, stride=stride, padding=kernel // 2, bias=False)
