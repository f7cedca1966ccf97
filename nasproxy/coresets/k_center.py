"""Greedy k-center: images that leave no other image far away (Wolf 2011; Sener & Savarese 2018, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nasproxy.coresets.features import choose_by_features
from nasproxy.coresets.trained_coreset import TrainedCoreset
from nasproxy.coresets.whole_training import WholeTraining
from nasproxy.datasets.image_dataset import ImageDataset


@dataclass(frozen=True)
class KCenter(TrainedCoreset):
    """Centres of each class, by Euclidean distance of the features of a network trained on all images."""

    name: ClassVar[str] = "k-center"

    def choose(self, dataset: ImageDataset, trained: WholeTraining, seed: int) -> Int64[Tensor, " n"]:
        """By :func:`greedy_centres` in each class; nothing is drawn at random."""
        return choose_by_features(dataset, trained.network, lambda rows: greedy_centres(rows, self.ipc))


def greedy_centres(features: Float[Tensor, "n features"], count: int) -> Int64[Tensor, " count"]:
    """``count`` different rows: the one closest to the mean, then always the one farthest from its nearest centre.

    The largest distance to a centre is at most twice the least possible (Gonzalez 1985). The first of equals is taken.

    Args:
        features: of one class.
        count: at most the number of rows.
    """
    chosen = [int(_squared_distances(features, features.mean(0)).argmin())]
    nearest = _squared_distances(features, features[chosen[0]])
    while len(chosen) < count:
        nearest[chosen] = -1  # a copy of a centre is as near, but another image
        chosen.append(int(nearest.argmax()))
        nearest = nearest.minimum(_squared_distances(features, features[chosen[-1]]))
    return torch.tensor(chosen)


def _squared_distances(rows: Float[Tensor, "n features"], to: Float[Tensor, " features"]) -> Float[Tensor, " n"]:
    return (rows - to).square().sum(1)
