"""Random real images, as many of each class: the simplest coreset, and the rival to beat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int64
from torch import Tensor

from nasproxy.datasets.image_dataset import ImageDataset
from nasproxy.datasets.per_class import draw_per_class
from nasproxy.proxies.condensed import Condensed
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
        """Draws them; see :func:`~nasproxy.datasets.per_class.draw_per_class`."""
        positions = draw_per_class(dataset, self.ipc, torch.Generator().manual_seed(seed))
        return chosen_images(dataset, positions, seconds=0.0)


def chosen_images(
    dataset: ImageDataset, positions: Int64[Tensor, " n"], *, seconds: float, losses: tuple[float, ...] = ()
) -> Condensed:
    """The training images at ``positions``, normalised."""
    images = dataset.normalisation.apply(dataset.train.images[positions])
    return Condensed(images, dataset.train.labels[positions], losses, seconds)
