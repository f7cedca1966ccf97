"""Differentiable siamese augmentation: Zhao & Bilen, ICML 2021. Gradient matching of augmented images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from nasproxy.condensation.recipe import MatchingRecipe
from nasproxy.training.strategy import AUTO, parse_strategy, strategy_of

if TYPE_CHECKING:  # settings are read before torch is loaded
    from nasproxy.datasets.image_dataset import ImageDataset


@dataclass(frozen=True)
class SiameseRecipe(MatchingRecipe):
    """Gradient matching in which each step draws one augmentation for real and synthetic images alike.

    The class's real images and its synthetic ones pass through the same transformation, with the same parameters,
    before their gradients are compared. The network's own training between the steps is augmented, too: one kind for a
    batch, with parameters for each of its images.

    Args:
        augmentation: kinds joined by hyphens, ``none``, or ``auto``, see
            :func:`nasproxy.training.strategy.parse_strategy`.
    """

    name: ClassVar[str] = "dsa"

    initial: str = "real"
    augmentation: str = AUTO

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_strategy(self.augmentation, "")

    def augmentations(self, dataset: ImageDataset) -> tuple[str, ...]:
        """Those of the strategy."""
        return parse_strategy(self.augmentation, dataset.name)

    def for_dataset(self, dataset: ImageDataset) -> SiameseRecipe:
        """With the augmentations that ``auto`` stands for."""
        return replace(self, augmentation=strategy_of(self.augmentations(dataset)))
