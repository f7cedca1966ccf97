"""What a trained network sees in the images of each class: the input of its last layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from nasproxy.datasets.image_dataset import ImageDataset, Normalisation
from nasproxy.networks.convnet import ConvNet

_BATCH = 256

Features = Float[Tensor, "n features"]


@torch.no_grad()
def features(network: ConvNet, images: UInt8[Tensor, "n c h w"], normalisation: Normalisation) -> Features:
    """The penultimate layer for each image, as float64 on the CPU.

    The network runs in float32, whatever it was trained in: bfloat16 would make near features equal. No augmentation.
    """
    device = next(network.parameters()).device
    rows = [network.embed(normalisation.apply(batch.to(device))).cpu() for batch in images.split(_BATCH)]
    return torch.cat(rows).double()


def choose_by_features(
    dataset: ImageDataset, network: ConvNet, choose: Callable[[Features], Int64[Tensor, " ipc"]]
) -> Int64[Tensor, " n"]:
    """Positions in the training part of what ``choose`` picks among the rows of each class, classes in order.

    Only one class's features are held at a time.
    """
    chosen = []
    for members in dataset.train.indices_by_class(dataset.num_classes):
        # Picked batch by batch: a class of a large dataset need not fit in memory.
        picked = (dataset.train.images[few] for few in members.split(_BATCH))
        rows = torch.cat([features(network, images, dataset.normalisation) for images in picked])
        chosen.append(members[choose(rows)])
    return torch.cat(chosen)
