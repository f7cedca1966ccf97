"""AlexNet (Krizhevsky, Sutskever & Hinton 2012) cut to small images, as Zhao, Mopuri & Bilen (2021) use it."""

from __future__ import annotations

from torch import nn

from nasproxy.networks.classifier import Classifier, Readout, extra_padding, too_small

_SMALLEST = 8  # three poolings


class AlexNet(Classifier):
    """Convolutions of 128 and 192 (5×5), 256, 192 and 192 (3×3) filters with ReLU, then one linear layer.

    2×2 max pooling follows the first, the second and the last. There is no normalisation. 28×28 images of one channel
    are padded to 32×32 by the first convolution, as the authors do.

    Args:
        in_channels: channels of an image.
        num_classes: number of logits.
        image_size: (height, width) in pixels, 8×8 or more.

    Raises:
        InputError: the image is smaller.
    """

    def __init__(self, in_channels: int, num_classes: int, image_size: tuple[int, int]) -> None:
        if min(image_size) < _SMALLEST:
            raise too_small("AlexNet", image_size, _SMALLEST)
        extra = extra_padding(in_channels, image_size)
        height, width = ((side + 2 * extra) // 8 for side in image_size)
        features = nn.Sequential(
            nn.Conv2d(in_channels, 128, kernel_size=5, padding=2 + extra),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(128, 192, kernel_size=5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(192, 256, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 192, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(192, 192, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        super().__init__(features, Readout(192 * height * width, num_classes))
