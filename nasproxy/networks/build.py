"""A freshly initialised network of the paper, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nasproxy.errors import InputError, nearest
from nasproxy.networks.alexnet import AlexNet
from nasproxy.networks.classifier import Classifier
from nasproxy.networks.convnet import ConvNet
from nasproxy.networks.lenet import LeNet
from nasproxy.networks.mlp import MLP
from nasproxy.networks.resnet18 import ResNet18
from nasproxy.networks.vgg11 import VGG11

_CLASSES: dict[str, Callable[..., Classifier]] = {
    "mlp": MLP,
    "convnet": ConvNet,
    "lenet": LeNet,
    "alexnet": AlexNet,
    "vgg11": VGG11,
    "resnet18": ResNet18,
}
_CONDENSING: dict[str, dict[str, Any]] = {
    "vgg11": {"norm": "batch"},
    "resnet18": {"norm": "batch", "strided": False},
}
"""How the paper changes a network for as long as images are condensed with it (appendix A)."""


def build_network(
    name: str,
    in_channels: int,
    num_classes: int,
    image_size: tuple[int, int],
    *,
    condensing: bool = False,
    **settings: Any,
) -> Classifier:
    """The network that :data:`nasproxy.networks.names.NETWORKS` lists as ``name``, initialised by torch's own numbers.

    Args:
        name: of the network.
        in_channels: channels of an image.
        num_classes: number of logits.
        image_size: (height, width) in pixels.
        condensing: the variant that images are condensed with, where the paper has one: VGG-11 and ResNet-18 with batch
            instead of instance normalisation, ResNet-18 with average pooling instead of strides. Without it, the
            variant that is trained on a set and measured.
        settings: of the network's class, such as a ConvNet's ``width``.

    Raises:
        InputError: the name is unknown, or the image too small.
    """
    if name not in _CLASSES:
        raise InputError(f"No network is called {name!r}.", nearest(name, _CLASSES))
    changes = _CONDENSING.get(name, {}) if condensing else {}
    return _CLASSES[name](in_channels, num_classes, image_size, **{**changes, **settings})
