"""The ground truth as a proxy: every candidate trained on the whole data, as finalists are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from nasproxy.proxies.procedure import Procedure
from nasproxy.training.recipe import TrainingRecipe

if TYPE_CHECKING:  # settings are read before torch is loaded
    from nasproxy.datasets.image_dataset import ImageDataset, Split


@dataclass(frozen=True)
class WholeData(Procedure):
    """The whole training part with the finalists' recipe: what all other proxies save."""

    name: ClassVar[str] = "whole"

    def images(self, dataset: ImageDataset, *, seed: int) -> Split:
        """The whole training part."""
        return dataset.train

    def recipe(self, dataset: ImageDataset, whole: TrainingRecipe) -> TrainingRecipe:
        """The finalists'."""
        return whole
