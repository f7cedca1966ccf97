"""How one network is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nasproxy.errors import InputError, nearest
from nasproxy.training.strategy import SIAMESE, siamese_kinds

AUGMENTATIONS = ("none", "crop", "crop-flip")
"""Those that suit any training; one on condensed images may be ``siamese`` too."""
PRECISIONS = ("auto", "bfloat16", "bfloat16-direct", "float32", "float32-direct")
"""The direct ones leave convolutions to torch, which a CPU computes in faster ways otherwise."""

LEARNING_RATE = 0.01
"""The paper's, of networks trained on condensed images and on the whole data."""


@dataclass(frozen=True)
class TrainingRecipe:
    """SGD with momentum, the learning rate divided by ten at half time (Zhao, Mopuri & Bilen 2021, appendix A).

    Args:
        epochs: passes over the training images.
        learning_rate: of the first half.
        momentum: of SGD.
        weight_decay: of SGD.
        batch_size: images a step; a smaller set is one batch.
        augmentation: ``none``, ``crop``, ``crop-flip``, or ``siamese`` (what dsa and dm condense with: all six kinds,
            or those behind a colon, as in ``siamese:color-crop``).
        images: that an epoch shows, other ones each time until all have been shown; None is all of them in each.
    """

    epochs: int
    learning_rate: float = LEARNING_RATE
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 256
    augmentation: str = "none"
    images: int | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise InputError(f"A training takes 1 epoch or more, got {self.epochs}.")
        if self.batch_size < 1:
            raise InputError(f"A batch holds 1 image or more, got {self.batch_size}.")
        if self.images is not None and self.images < 1:
            raise InputError(f"An epoch shows 1 image or more, got {self.images}.")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"The learning rate must be above 0, got {self.learning_rate}.")
        if self.augmentation not in AUGMENTATIONS and siamese_kinds(self.augmentation) is None:
            known = (*AUGMENTATIONS, SIAMESE)
            raise InputError(f"No augmentation is called {self.augmentation!r}.", nearest(self.augmentation, known))

    def learning_rate_at(self, epoch: int) -> float:
        """The learning rate of ``epoch``, counted from 0."""
        return self.learning_rate if epoch < (self.epochs + 1) // 2 else self.learning_rate / 10


def whole_batch_size(images: int) -> int:
    """Images a step where all data are trained on: a sixteenth of them, between 16 and 256."""
    return min(256, max(16, images // 16))
