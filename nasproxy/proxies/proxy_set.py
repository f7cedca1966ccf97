"""The value that stands for the data: a handful of labelled images, real or synthetic, and where they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int64
from torch import Tensor

from nasproxy.datasets.image_dataset import ImageDataset, Normalisation, classes_of, shape_of
from nasproxy.errors import ProxyError
from nasproxy.text import counted

SOURCES, FULL_SPLIT = "sources", "full training split"
"""The entry of a recipe, and its word, that says that held-out images took part in making the set."""


@dataclass(frozen=True)
class ProxySet:
    """A small labelled training set that candidates are ranked on.

    Args:
        images: in the dataset's normalised space (zero mean, unit deviation a channel), as a network sees them.
        labels: class indices.
        method: what made it: ``dc``, ``random``, …
        recipe: every setting that the method's result depends on, the seed among them; JSON values.
        dataset: the name of the dataset it was made from.
        fingerprint: that dataset's fingerprint.
        class_names: that dataset's.
        normalisation: that dataset's; turns ``images`` back into pixels.
        seconds: what making it cost.
        history: what the method recorded on the way (the matching loss of each outer iteration); may be empty.
        versions: of the libraries that made it.
        evaluations: step (from 1) and test accuracy, a fraction, where it was measured on the way; may be empty.
        finished: False where making it was stopped before its end.
        soft_labels: the probability of each class, which trainings on the set aim at; None where they aim at
            ``labels``. Rows add up to 1.
    """

    images: Float[Tensor, "n channels height width"]
    labels: Int64[Tensor, " n"]
    method: str
    recipe: Mapping[str, Any]
    dataset: str
    fingerprint: str
    class_names: tuple[str, ...]
    normalisation: Normalisation
    seconds: float
    history: tuple[float, ...]
    versions: Mapping[str, str]
    evaluations: tuple[tuple[int, float], ...] = ()
    finished: bool = True
    soft_labels: Float[Tensor, "n classes"] | None = None

    def __repr__(self) -> str:
        images = f"{counted(len(self), 'image')} of {shape_of(self.images)}"
        soft = "" if self.soft_labels is None else ", soft labels"
        return (
            f"ProxySet({self.method}: {images}{soft}{'' if self.finished else ', unfinished'}\n"
            f"  {classes_of(self.class_names)}\n"
            f"  of the dataset {self.dataset}, fingerprint {self.fingerprint[:12]})"
        )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return int(self.images.shape[2]), int(self.images.shape[3])

    @property
    def doubt(self) -> str | None:
        """What a reader of scores must know of the images; None where they are of the training part alone."""
        if self.recipe.get(SOURCES) != FULL_SPLIT:
            return None
        return (
            f"This proxy of {self.dataset} was condensed from the full training split, which nasproxy's validation"
            " images are part of: validation accuracies by it may be too high."
        )

    def check_matches(self, dataset: ImageDataset) -> None:
        """Makes sure that the set was made from ``dataset``: same pixels, same split, same size.

        Raises:
            ProxyError: it was not.
        """
        if self.image_size != dataset.image_size or self.images.shape[1] != dataset.channels:
            raise ProxyError(
                f"The proxy holds images of {_shape(self.images.shape[1], self.image_size)}, the dataset "
                f"{dataset.name} has {_shape(dataset.channels, dataset.image_size)}.",
                "Condense again for this size, or pass the --image-size that the proxy was made with.",
            )
        if len(self.class_names) != dataset.num_classes:
            raise ProxyError(
                f"The proxy's labels are of {len(self.class_names)} classes, the dataset {dataset.name} has "
                f"{dataset.num_classes}.",
                "Give the dataset that the proxy was made from, or make a proxy from this one.",
            )
        if self.fingerprint != dataset.fingerprint:
            raise ProxyError(
                f"The proxy was made from the dataset {self.dataset} (fingerprint {self.fingerprint[:12]}), not from "
                f"{dataset.name} (fingerprint {dataset.fingerprint[:12]}).",
                "Its validation images could be among the proxy's sources; make a proxy from this dataset.",
            )


def _shape(channels: int, size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]} pixels and {channels} channel{'s' if channels > 1 else ''}"
