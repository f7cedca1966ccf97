"""What the networks of the paper have in common: features of an image, then one linear layer."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, channels_last, nn

from nasproxy.errors import InputError


class Classifier(nn.Module):
    """Logits by one linear layer from the features of an image.

    Args:
        features: of a batch of images; their values in any shape, images first.
        classifier: from the features, flattened, to the logits.
    """

    def __init__(self, features: nn.Sequential, classifier: nn.Linear) -> None:
        super().__init__()
        self.features = features.to(memory_format=channels_last)
        self.classifier = classifier

    def embed(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n features"]:
        """The input of the linear layer, one row an image."""
        # Channels-last is the layout that pooling is vectorised for on a CPU, and tensor cores read on a GPU.
        features: Tensor = self.features(images.contiguous(memory_format=channels_last))
        return features.flatten(1)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """Logits."""
        logits: Tensor = self.classifier(self.embed(images))
        return logits


def extra_padding(in_channels: int, image_size: tuple[int, int]) -> int:
    """What the first convolution pads on each side beyond its usual padding, so that the network goes on as at 32×32.

    The authors do so for 28×28 images of one channel; for all others it is 0.
    """
    return 2 if in_channels == 1 and image_size == (28, 28) else 0


def too_small(network: str, image_size: tuple[int, int], smallest: int) -> InputError:
    """The error that an image has too few pixels for a network.

    Args:
        network: as a reader knows it.
        image_size: (height, width) of the image.
        smallest: side of the smallest square image that the network takes.
    """
    return InputError(
        f"An image of {image_size[0]}×{image_size[1]} pixels is too small for {network}, which takes "
        f"{smallest}×{smallest} or more.",
        f"Resize the images with --image-size {smallest}, or choose another network.",
    )
