"""What every way of making a proxy's images looks like: settings, and one method that makes them.

A package adds one by subclassing :class:`ProxyMethod` and registering the class by entry point: in the group
``nasproxy.condensers`` if it learns synthetic images, in ``nasproxy.proxies`` if it picks real ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:  # settings are read before torch is loaded
    import torch

    from nasproxy.datasets.image_dataset import ImageDataset
    from nasproxy.proxies.condensed import Condensed


@dataclass(frozen=True)
class ProxyMethod(ABC):
    """A way to make the images of a proxy. A subclass is a frozen dataclass; its fields are JSON scalars.

    Two instances that are equal make the same images from the same dataset, seed, device and precision; what is made is
    cached on that ground.

    Args:
        ipc: images per class.
    """

    name: ClassVar[str]
    """What ``--proxy`` and ``--method`` call it."""
    verb: ClassVar[str] = "Making the proxy"
    """What the progress display says it does."""
    loss_name: ClassVar[str] = "loss"
    """What the loss is that is reported after each step."""

    ipc: int = 10

    @classmethod
    def preset(cls, preset: str, ipc: int) -> ProxyMethod:  # noqa: ARG003, for those who have presets
        """The settings of ``quick`` (minutes on two cores) or ``paper`` for ``ipc`` images per class."""
        return cls(ipc=ipc)

    @property
    def steps(self) -> int:
        """How often :meth:`make` reports progress; 0 where it is over at once."""
        return 0

    def expected_seconds(self, dataset: ImageDataset, *, device: torch.device, precision: str) -> float | None:
        """How long :meth:`make` takes on this machine, by a small part of its work; None where nobody can say."""
        return None if self.steps else 0.0

    def for_dataset(self, dataset: ImageDataset) -> ProxyMethod:
        """The same settings, with what else of ``dataset`` they depend on, such as its name, said in them."""
        return self

    def doubt(self, losses: Sequence[float]) -> str | None:
        """What the user should know of images that came of such losses, with what to do; None where nothing is wrong.

        Args:
            losses: one a step.
        """
        return None

    @abstractmethod
    def make(
        self,
        dataset: ImageDataset,
        *,
        seed: int,
        device: torch.device,
        precision: str,
        on_iteration: Callable[[int, float], None] | None = None,
    ) -> Condensed:
        """Makes ``ipc`` images of each class, classes in order, from the training part of ``dataset`` alone.

        Args:
            dataset: whose training part is looked at.
            seed: of everything drawn at random.
            device: where to compute.
            precision: ``bfloat16`` or ``float32``.
            on_iteration: called after each of ``steps`` with its number (from 1) and a loss.

        Raises:
            DatasetError: a class has too few images.
            DivergedError: a loss left the finite numbers.
        """
