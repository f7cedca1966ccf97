"""The 720 ConvNets of the paper's architecture search: Zhao, Mopuri and Bilen, ICLR 2021, section 3.2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nasproxy.spaces.space import Config, Scalar, SearchSpace

if TYPE_CHECKING:
    from torch import nn


class ConvNet720(SearchSpace):
    """Width × depth × normalisation × activation × pooling: 4 · 4 · 5 · 3 · 3 = 720 networks of convolution blocks."""

    name = "convnet720"
    choices: Mapping[str, Sequence[Scalar]] = {
        "width": (32, 64, 128, 256),
        "depth": (1, 2, 3, 4),
        "norm": ("none", "batch", "layer", "instance", "group"),
        "activation": ("sigmoid", "relu", "leaky_relu"),
        "pooling": ("none", "max", "average"),
    }

    def build(self, config: Config, *, in_channels: int, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
        """A :class:`~nasproxy.networks.convnet.ConvNet` with the configuration's five choices."""
        from nasproxy.networks.convnet import ConvNet  # to list and check the choices takes no torch

        chosen: dict[str, Any] = dict(config)
        return ConvNet(
            in_channels=in_channels,
            num_classes=num_classes,
            image_size=image_size,
            width=chosen["width"],
            depth=chosen["depth"],
            norm=chosen["norm"],
            activation=chosen["activation"],
            pooling=chosen["pooling"],
        )

    def is_valid(self, config: Config, image_size: tuple[int, int]) -> bool | str:
        """Refuses more poolings than the shorter side can be halved.

        The paper's padding of 28×28 images to 32×32 need not be known here: both can be halved four times.
        """
        chosen: dict[str, Any] = dict(config)
        height, width = image_size
        halvings = min(image_size).bit_length() - 1
        if chosen["pooling"] == "none" or chosen["depth"] <= halvings:
            return True
        return (
            f"{chosen['depth']} poolings are too many for {height}×{width} pixels, which can be halved {halvings} times"
        )
