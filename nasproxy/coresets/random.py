"""Random real images, as many of each class: the simplest coreset, and the rival to beat."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

from nasproxy.datasets.image_dataset import ImageDataset
from nasproxy.errors import DatasetError


def draw_per_class(dataset: ImageDataset, ipc: int, generator: torch.Generator) -> Int64[Tensor, " n"]:
    """Positions in the training part of ``ipc`` different random images of each class, classes in order.

    Raises:
        DatasetError: a class has fewer than ``ipc`` training images.
    """
    drawn = []
    for name, members in zip(dataset.class_names, dataset.train.indices_by_class(dataset.num_classes), strict=True):
        if len(members) < ipc:
            raise DatasetError(
                f"{ipc} images per class were asked for, but class {name!r} has {len(members)} training images.",
                f"Use --ipc {len(members)} or less, or add images to that class.",
            )
        drawn.append(members[torch.randperm(len(members), generator=generator)[:ipc]])
    return torch.cat(drawn)
