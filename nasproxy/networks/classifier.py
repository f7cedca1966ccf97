"""What the networks of the paper have in common: features of an image, then one linear layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, channels_last, nn

from nasproxy.errors import InputError


class Readout(nn.Linear):
    """A linear layer that flattens what it is given, and reads maps in the order in which channels-last stores them.

    It is its weights that are put into that order, as they are fewer. Flattening the maps would copy them one number at
    a time, and so would all layers below when the gradient comes back in the other layout.
    """

    def forward(self, input: Float[Tensor, "n ..."]) -> Float[Tensor, "n classes"]:  # noqa: A002, the name of nn.Linear
        """Logits."""
        if input.dim() != 4 or torch.compiler.is_compiling():  # what is exported need not be fast, but plain
            return super().forward(input.flatten(1))
        weight = self.weight.view(-1, *input.shape[1:]).permute(0, 2, 3, 1)
        return F.linear(input.permute(0, 2, 3, 1).flatten(1), weight.flatten(1), self.bias)


class Classifier(nn.Module):
    """Logits by one linear layer from the features of an image.

    Args:
        features: of a batch of images; their values in any shape, images first.
        classifier: from the features to the logits.
    """

    def __init__(self, features: nn.Sequential, classifier: Readout) -> None:
        super().__init__()
        self.features = features.to(memory_format=channels_last)
        self.classifier = classifier

    def embed(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n features"]:
        """The input of the linear layer, one row an image."""
        return self._maps(images).flatten(1)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """Logits."""
        logits: Tensor = self.classifier(self._maps(images))
        return logits

    def _maps(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n ..."]:
        # Channels-last is the layout that pooling is vectorised for on a CPU, and tensor cores read on a GPU.
        features: Tensor = self.features(images.contiguous(memory_format=channels_last))
        return features


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
