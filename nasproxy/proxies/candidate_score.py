"""What every score without training looks like: settings, and one method that scores a network.

A package adds one by subclassing :class:`CandidateScore` and registering the class by entry point in the group
``nasproxy.proxies``, beside the methods that make images.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from nasproxy.errors import InputError

if TYPE_CHECKING:  # settings are read before torch is loaded
    from torch import Tensor, nn


@dataclass(frozen=True)
class CandidateScore(ABC):
    """A way to score a network without training it. A subclass is a frozen dataclass; its fields are JSON scalars.

    Args:
        batch: random training images that are looked at, drawn once for all candidates; at least 2.
    """

    name: ClassVar[str]
    """What ``compare --proxies`` calls it."""
    looks_at_images: ClassVar[bool] = True
    """Whether the images' content matters; where it does not, their shape alone is looked at."""

    batch: int = 64

    def __post_init__(self) -> None:
        if self.batch < 2:
            raise InputError(f"A score looks at 2 images or more, got {self.batch}.")

    @abstractmethod
    def score(self, model: nn.Module, images: Tensor, labels: Tensor) -> float:
        """A finite number, higher for a network that is expected to do better.

        Args:
            model: freshly initialised, in training mode, on the device of ``images``; its weights, mode and statistics
                may be changed, as nobody uses it afterwards.
            images: (n, channels, height, width), normalised training images.
            labels: (n,) class indices.

        Raises:
            ScoreError: the score is not defined for this network.
        """
