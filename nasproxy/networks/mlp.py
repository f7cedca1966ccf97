"""The multilayer perceptron of the paper (Zhao, Mopuri & Bilen 2021, section 3.1)."""

from __future__ import annotations

from torch import nn

from nasproxy.networks.classifier import Classifier, Readout

_HIDDEN = 128


class MLP(Classifier):
    """Two hidden layers of 128 units with ReLU, for images of any size.

    Args:
        in_channels: channels of an image.
        num_classes: number of logits.
        image_size: (height, width) in pixels.
    """

    def __init__(self, in_channels: int, num_classes: int, image_size: tuple[int, int]) -> None:
        values = in_channels * image_size[0] * image_size[1]
        features = nn.Sequential(
            nn.Flatten(), nn.Linear(values, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, _HIDDEN), nn.ReLU()
        )
        super().__init__(features, Readout(_HIDDEN, num_classes))
