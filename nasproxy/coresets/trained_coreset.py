"""What the coresets have in common that are chosen after a training on the whole training part."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int64
from torch import Tensor

from nasproxy.coresets.random import chosen_images
from nasproxy.coresets.whole_training import EPOCHS, WholeRecipe, WholeTraining, expected_seconds, trained_on_whole
from nasproxy.datasets.image_dataset import ImageDataset
from nasproxy.datasets.per_class import check_class_sizes
from nasproxy.errors import InputError
from nasproxy.proxies.condensed import Condensed
from nasproxy.proxies.method import ProxyMethod


@dataclass(frozen=True)
class TrainedCoreset(ProxyMethod):
    """Real images chosen by what a ConvNet shows that is trained on the whole training part.

    Methods with equal settings share one training through the cache; each counts its time as its own.

    Args:
        ipc: images per class.
        epochs: of the training.
        width: filters of the ConvNet.
        depth: its number of blocks.
    """

    verb: ClassVar[str] = "Selecting"
    loss_name: ClassVar[str] = "training loss"

    epochs: int = EPOCHS["quick"]
    width: int = 128
    depth: int = 3

    def __post_init__(self) -> None:
        for name in ("ipc", "epochs", "width", "depth"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be 1 or more, got {getattr(self, name)}.")

    @classmethod
    def preset(cls, preset: str, ipc: int) -> TrainedCoreset:
        """20 epochs for ``quick`` (seconds on two cores for digits), 100 for ``paper``."""
        return cls(ipc=ipc, epochs=EPOCHS[preset])

    @property
    def steps(self) -> int:
        """The epochs."""
        return self.epochs

    @property
    def training(self) -> WholeRecipe:
        """The part of the settings that the training depends on."""
        return WholeRecipe(self.epochs, self.width, self.depth)

    def expected_seconds(self, dataset: ImageDataset, *, device: torch.device, precision: str) -> float:
        """By a few batches of the training; choosing takes less than an epoch."""
        return expected_seconds(dataset, self.training, device=device, precision=precision)

    def make(
        self,
        dataset: ImageDataset,
        *,
        seed: int,
        device: torch.device,
        precision: str,
        on_iteration: Callable[[int, float], None] | None = None,
    ) -> Condensed:
        """Trains, then chooses."""
        check_class_sizes(dataset, self.ipc)
        trained = trained_on_whole(
            dataset, self.training, seed=seed, device=device, precision=precision, on_epoch=on_iteration
        )
        began = time.perf_counter()
        positions = self.choose(dataset, trained, seed)
        seconds = trained.seconds + time.perf_counter() - began
        return chosen_images(dataset, positions, seconds=seconds, losses=trained.losses)

    @abstractmethod
    def choose(self, dataset: ImageDataset, trained: WholeTraining, seed: int) -> Int64[Tensor, " n"]:
        """Positions in the training part of ``ipc`` images of each class, classes in order."""
