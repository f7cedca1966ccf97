"""Early stopping: trainings on real images that take as many steps, of as many images, as those on a proxy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from nasproxy.proxies.procedure import Procedure
from nasproxy.training.recipe import TrainingRecipe

if TYPE_CHECKING:  # settings are read before torch is loaded
    from nasproxy.datasets.image_dataset import ImageDataset, Split


@dataclass(frozen=True)
class EarlyStopping(Procedure):
    """The whole training part, for as many steps as a training on a proxy takes (Zhao, Mopuri & Bilen 2021, 3.2).

    An epoch is as long as one over a proxy and shows other images each time, none of them again before all have been
    shown; batches and learning rates are those of the proxy's training, step by step.
    """

    name: ClassVar[str] = "early-stopping"

    def images(self, dataset: ImageDataset, *, seed: int) -> Split:
        """The whole training part."""
        return dataset.train

    def recipe(self, dataset: ImageDataset, whole: TrainingRecipe) -> TrainingRecipe:
        """That of a proxy of ``ipc`` images per class."""
        return TrainingRecipe(self.epochs, self.learning_rate, images=self.ipc * dataset.num_classes)


@dataclass(frozen=True)
class EarlyStoppingSubset(EarlyStopping):
    """Early stopping on a random subset of the training part: fewer images, each seen more often, at the same cost.

    Its size is the geometric mean of the proxy's and the training part's: as many times larger than the one as it is
    smaller than the other.
    """

    name: ClassVar[str] = "early-stopping-subset"

    def images(self, dataset: ImageDataset, *, seed: int) -> Split:
        """The subset, a seeded draw."""
        import torch

        count = len(dataset.train)
        size = round(math.sqrt(self.ipc * dataset.num_classes * count))
        picked = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:size]
        return dataset.train.take(picked)
