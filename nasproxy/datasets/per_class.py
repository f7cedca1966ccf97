"""As many training images of each class, picked at random."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

from nasproxy.datasets.image_dataset import ImageDataset
from nasproxy.errors import DatasetError, InputError


def draw_per_class(dataset: ImageDataset, ipc: int, generator: torch.Generator) -> Int64[Tensor, " n"]:
    """Positions in the training part of ``ipc`` different random images of each class, classes in order.

    Raises:
        DatasetError: a class has fewer than ``ipc`` training images.
    """
    check_class_sizes(dataset, ipc)
    by_class = dataset.train.indices_by_class(dataset.num_classes)
    return torch.cat([members[torch.randperm(len(members), generator=generator)[:ipc]] for members in by_class])


def check_class_sizes(dataset: ImageDataset, ipc: int) -> None:
    """Makes sure that every class has ``ipc`` training images.

    Raises:
        InputError: ``ipc`` is less than one.
        DatasetError: the smallest class has fewer.
    """
    if ipc < 1:
        raise InputError(f"A proxy holds 1 image per class or more, got {ipc}.")
    sizes = torch.bincount(dataset.train.labels, minlength=dataset.num_classes)
    smallest = int(sizes.argmin())
    if sizes[smallest] < ipc:
        raise DatasetError(
            f"{ipc} images per class were asked for, but class {dataset.class_names[smallest]!r} has "
            f"{int(sizes[smallest])} training images.",
            f"Use --ipc {int(sizes[smallest])} or less, or add images to that class.",
        )
