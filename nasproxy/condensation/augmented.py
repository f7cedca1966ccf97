"""What siamese augmentation adds to a method's settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nasproxy.condensation.condenser import Condenser
from nasproxy.training.strategy import AUTO, parse_strategy, strategy_of

if TYPE_CHECKING:  # settings are read before torch is loaded
    from nasproxy.datasets.image_dataset import ImageDataset


@dataclass(frozen=True)
class Augmented(Condenser):
    """A method whose matching steps each draw one augmentation for real and synthetic images alike.

    Args:
        augmentation: kinds joined by hyphens, ``none``, or ``auto``, see
            :func:`nasproxy.training.strategy.parse_strategy`.
    """

    augmentation: str = AUTO

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_strategy(self.augmentation, "")

    def augmentations(self, dataset: ImageDataset) -> tuple[str, ...]:
        """Those of the strategy."""
        return parse_strategy(self.augmentation, dataset.name)

    def for_dataset(self, dataset: ImageDataset) -> Augmented:
        """With the augmentations that ``auto`` stands for."""
        return replace(self, augmentation=strategy_of(self.augmentations(dataset)))
