"""Differentiable siamese augmentation: Zhao & Bilen, ICML 2021. Gradient matching of augmented images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nasproxy.condensation.augmented import Augmented
from nasproxy.condensation.recipe import MatchingRecipe


@dataclass(frozen=True)
class SiameseRecipe(MatchingRecipe, Augmented):
    """Gradient matching in which each step draws one augmentation for real and synthetic images alike.

    The class's real images and its synthetic ones pass through the same transformation, with the same parameters,
    before their gradients are compared. The network's own training between the steps is augmented, too: one kind for a
    batch, with parameters for each of its images.
    """

    name: ClassVar[str] = "dsa"

    initial: str = "real"
