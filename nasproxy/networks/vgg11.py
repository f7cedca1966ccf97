"""VGG-11 (Simonyan & Zisserman 2015) with one linear layer and normalisation, as Zhao, Mopuri & Bilen (2021) use it."""

from __future__ import annotations

from torch import nn

from nasproxy.networks.classifier import Classifier, Readout, extra_padding, too_small
from nasproxy.networks.convnet import NORMS

_STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))
"""Filters of the convolutions; a pooling ends each stage."""
_SMALLEST = 2 ** len(_STAGES)


class VGG11(Classifier):
    """Eight 3×3 convolutions with normalisation and ReLU, in five stages that end in 2×2 max pooling; one linear layer.

    28×28 images of one channel are padded to 32×32 by the first convolution, as the authors do.

    Args:
        in_channels: channels of an image.
        num_classes: number of logits.
        image_size: (height, width) in pixels, 32×32 or more.
        norm: ``instance``, or ``batch``, which the paper condenses with.

    Raises:
        InputError: the image is smaller.
    """

    def __init__(
        self, in_channels: int, num_classes: int, image_size: tuple[int, int], *, norm: str = "instance"
    ) -> None:
        extra = extra_padding(in_channels, image_size)
        height, width = (side + 2 * extra for side in image_size)
        if min(height, width) < _SMALLEST:
            raise too_small("VGG-11", image_size, _SMALLEST)
        layers: list[nn.Module] = []
        channels = in_channels
        for stage in _STAGES:
            for filters in stage:
                padding = 1 if layers else 1 + extra
                layers += [nn.Conv2d(channels, filters, kernel_size=3, padding=padding)]
                layers += [NORMS[norm](filters, (height, width)), nn.ReLU()]
                channels = filters
            layers.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
        super().__init__(nn.Sequential(*layers), Readout(channels * height * width, num_classes))
