"""Forgetting: the images that a network unlearns most often while it learns all (Toneva et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nasproxy.coresets.trained_coreset import TrainedCoreset
from nasproxy.coresets.whole_training import WholeTraining
from nasproxy.datasets.image_dataset import ImageDataset


@dataclass(frozen=True)
class Forgetting(TrainedCoreset):
    """Of each class, the images with the most forgetting events while a network is trained on all images.

    An event is counted where an image that was classified rightly when last shown is classified wrongly. As in the
    paper, images never classified rightly come before all others. Most images have the same few events: among equals
    the choice is random, in the order in which ``random`` of the same seed draws them. Where all of a class are equal,
    both pick the same images: a difference between the two methods comes of events alone.
    """

    name: ClassVar[str] = "forgetting"

    def choose(self, dataset: ImageDataset, trained: WholeTraining, seed: int) -> Int64[Tensor, " n"]:
        """By :func:`most_forgotten` in each class."""
        generator = torch.Generator().manual_seed(seed)
        by_class = dataset.train.indices_by_class(dataset.num_classes)
        return torch.cat(
            [members[most_forgotten(trained.forgetting[members], self.ipc, generator)] for members in by_class]
        )


def most_forgotten(events: Float[Tensor, " n"], count: int, generator: torch.Generator) -> Int64[Tensor, " count"]:
    """Positions of the ``count`` largest, largest first, equals in random order."""
    order = torch.randperm(len(events), generator=generator)
    return order[events[order].argsort(descending=True, stable=True)[:count]]
