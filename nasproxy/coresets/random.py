"""Random real images, as many of each class: the simplest coreset, and the rival to beat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int64
from torch import Tensor

from nasproxy.condensation.condensed import Condensed
from nasproxy.datasets.image_dataset import ImageDataset
from nasproxy.errors import DatasetError, InputError
from nasproxy.proxies.method import ProxyMethod


@dataclass(frozen=True)
class RandomImages(ProxyMethod):
    """``ipc`` random real training images of each class."""

    name: ClassVar[str] = "random"

    def make(
        self,
        dataset: ImageDataset,
        *,
        seed: int,
        device: torch.device,
        precision: str,
        on_iteration: Callable[[int, float], None] | None = None,
    ) -> Condensed:
        """Draws them; see :func:`draw_per_class`."""
        positions = draw_per_class(dataset, self.ipc, torch.Generator().manual_seed(seed))
        return chosen_images(dataset, positions, seconds=0.0)


def chosen_images(
    dataset: ImageDataset, positions: Int64[Tensor, " n"], *, seconds: float, losses: tuple[float, ...] = ()
) -> Condensed:
    """The training images at ``positions``, normalised."""
    images = dataset.normalisation.apply(dataset.train.images[positions])
    return Condensed(images, dataset.train.labels[positions], losses, seconds)


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
