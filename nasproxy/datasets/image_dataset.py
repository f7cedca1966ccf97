"""The value every other room works on: images in memory, split once, with a fingerprint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

from nasproxy.datasets.pixel_memory import PixelFile, take_rows
from nasproxy.errors import some
from nasproxy.text import counted, shorten


def shape_of(images: Tensor) -> str:
    """Of each, as a reader is told."""
    return "×".join(map(str, images.shape[1:]))


def classes_of(names: Sequence[str]) -> str:
    """How many, and what the first ones are called."""
    return f"{len(names)} classes: {some([shorten(name) for name in names])}"


@dataclass(frozen=True)
class Split:
    """Images and their labels.

    Args:
        images: uint8 pixels.
        labels: class indices in ``[0, num_classes)``.
        file: where the images lie that memory should not hold; ``images`` are mapped from it.
    """

    images: UInt8[Tensor, "n channels height width"]
    labels: Int64[Tensor, " n"]
    file: PixelFile | None = None

    def __repr__(self) -> str:
        place = "" if self.file is None else f", in {self.file.path}"
        return f"Split({counted(len(self), 'image')} of {shape_of(self.images)}{place})"

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Split:
        """The same split on ``device``."""
        return Split(self.images.to(device), self.labels.to(device))

    def take(self, positions: Int64[Tensor, " k"]) -> Split:
        """The images at ``positions``, in that order."""
        return Split(take_rows(self.images, positions), self.labels[positions])

    def indices_by_class(self, num_classes: int) -> list[Int64[Tensor, " k"]]:
        """For each class, the positions of its images, in order."""
        return [torch.nonzero(self.labels == c).flatten() for c in range(num_classes)]


@dataclass(frozen=True)
class Normalisation:
    """Per-channel mean and standard deviation of pixels scaled to [0, 1], computed on the training part only."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, images: UInt8[Tensor, "n c h w"]) -> Float32[Tensor, "n c h w"]:
        """``(images / 255 - mean) / std``, in no more memory than the result takes."""
        mean, std = self.columns(images.device)
        return images.float().div_(255).sub_(mean).div_(std)

    def invert(self, images: Float[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
        """Pixels that a normalised image shows; values outside [0, 255] are clipped."""
        return self.levels(images).clamp(0, 255).to(torch.uint8)

    def levels(self, images: Float[Tensor, "n c h w"]) -> Float32[Tensor, "n c h w"]:
        """The whole numbers nearest to the pixels of a normalised image, beyond 0 and 255 too."""
        mean, std = self.columns(images.device)
        return ((images.float() * std + mean) * 255).round()

    def columns(
        self, device: torch.device | None = None, dtype: torch.dtype = torch.float32
    ) -> tuple[Float[Tensor, "1 c 1 1"], Float[Tensor, "1 c 1 1"]]:
        """Mean and standard deviation, to be broadcast over images."""
        mean, std = (torch.tensor(values, dtype=dtype, device=device) for values in (self.mean, self.std))
        return mean.view(1, -1, 1, 1), std.view(1, -1, 1, 1)


@dataclass(frozen=True)
class ImageDataset:
    """A labelled image collection, split into train, validation and test.

    Args:
        name: what the user called it.
        train: what is condensed, drawn from and trained on. The split depends on the data alone, never on a run's seed.
        validation: what candidates are scored on.
        test: what is only ever reported.
        class_names: one name a class, in label order.
        normalisation: of the training part.
        fingerprint: hash of all pixels, labels, class names and the split.
        notes: what loading had to do that the user should know (a test part cut from train, broken files skipped).
    """

    name: str
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    normalisation: Normalisation
    fingerprint: str
    notes: Sequence[str] = field(default=())

    def __repr__(self) -> str:
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        counts = ", ".join(f"{len(part):,} {name}" for name, part in parts.items())
        return (
            f"ImageDataset({self.name}: {counts} images of {shape_of(self.train.images)}\n"
            f"  {classes_of(self.class_names)}\n"
            f"  fingerprint {self.fingerprint[:12]})"
        )

    @property
    def channels(self) -> int:
        """1 for grayscale, 3 for colour."""
        return int(self.train.images.shape[1])

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return int(self.train.images.shape[2]), int(self.train.images.shape[3])

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)
