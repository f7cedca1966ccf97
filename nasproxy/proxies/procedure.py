"""What every proxy that is a shorter or other training on real images looks like: the images, and how to train on them.

A package adds one by subclassing :class:`Procedure` and registering the class by entry point in the group
``nasproxy.proxies``, beside the methods that make images and the scores without training.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from nasproxy.training.recipe import LEARNING_RATE, TrainingRecipe

if TYPE_CHECKING:  # settings are read before torch is loaded
    from nasproxy.datasets.image_dataset import ImageDataset, Split


@dataclass(frozen=True)
class Procedure(ABC):
    """A way to rank candidates by training them on real images, none of which are made or kept.

    Args:
        ipc: images per class of the proxies that it is compared with.
        epochs: of the training on these.
        learning_rate: of the first half of that training.
    """

    name: ClassVar[str]
    """What ``--proxy`` calls it."""

    ipc: int = 10
    epochs: int = 100
    learning_rate: float = LEARNING_RATE

    @abstractmethod
    def images(self, dataset: ImageDataset, *, seed: int) -> Split:
        """The images that candidates are trained on, of the training part of ``dataset`` alone.

        Args:
            dataset: whose training part is looked at.
            seed: of everything drawn at random.
        """

    @abstractmethod
    def recipe(self, dataset: ImageDataset, whole: TrainingRecipe) -> TrainingRecipe:
        """How candidates are trained on them.

        Args:
            dataset: of :meth:`images`.
            whole: how finalists are trained on the whole training part.
        """

    def images_seen(self, dataset: ImageDataset, whole: TrainingRecipe, *, seed: int) -> int:
        """How many different images a training looks at: what has to be stored for it."""
        recipe, images = self.recipe(dataset, whole), len(self.images(dataset, seed=seed))
        return images if recipe.images is None else min(images, recipe.epochs * recipe.images)
