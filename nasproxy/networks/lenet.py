"""LeNet (LeCun, Bottou, Bengio & Haffner 1998) as Zhao, Mopuri & Bilen (2021) use it: ReLU and max pooling."""

from __future__ import annotations

from torch import nn

from nasproxy.networks.classifier import Classifier, Readout, extra_padding, too_small

_SMALLEST = 16


class LeNet(Classifier):
    """Two 5×5 convolutions of 6 and 16 filters, each with ReLU and 2×2 max pooling, then layers of 120 and 84 units.

    28×28 images of one channel are padded to 32×32 by the first convolution, as the authors do.

    Args:
        in_channels: channels of an image.
        num_classes: number of logits.
        image_size: (height, width) in pixels, 16×16 or more.

    Raises:
        InputError: the image is smaller.
    """

    def __init__(self, in_channels: int, num_classes: int, image_size: tuple[int, int]) -> None:
        if min(image_size) < _SMALLEST:
            raise too_small("LeNet", image_size, _SMALLEST)
        padding = extra_padding(in_channels, image_size)
        height, width = (_side(side + 2 * padding) for side in image_size)
        features = nn.Sequential(
            nn.Conv2d(in_channels, 6, kernel_size=5, padding=padding),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, kernel_size=5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * height * width, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
        )
        super().__init__(features, Readout(84, num_classes))


def _side(pixels: int) -> int:
    """What two convolutions without padding and two poolings leave of a side."""
    return ((pixels - 4) // 2 - 4) // 2
