"""Herding: images whose mean stays close to their class's (Welling 2009; Rebuffi et al. 2017, iCaRL, algorithm 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from nasproxy.coresets.features import choose_by_features
from nasproxy.coresets.trained_coreset import TrainedCoreset
from nasproxy.coresets.whole_training import WholeTraining
from nasproxy.datasets.image_dataset import ImageDataset


@dataclass(frozen=True)
class Herding(TrainedCoreset):
    """Of each class, the images that iCaRL keeps, by L2-normalised features of a network trained on all images.

    iCaRL normalises averages of features, too; here they stay as they are, so that the mean of the chosen tends to the
    class's own mean.
    """

    name: ClassVar[str] = "herding"

    def choose(self, dataset: ImageDataset, trained: WholeTraining, seed: int) -> Int64[Tensor, " n"]:
        """By :func:`herd` in each class; nothing is drawn at random."""
        return choose_by_features(dataset, trained.network, lambda rows: herd(F.normalize(rows), self.ipc))


def herd(features: Float[Tensor, "n features"], count: int) -> Int64[Tensor, " count"]:
    """``count`` different rows, one after another, each the one that brings the mean of those chosen closest to μ.

    With S the sum of the rows chosen before the k-th, ‖S + x - kμ‖² is smallest where ‖x‖² - 2 x·(kμ - S) is. The first
    of equals is taken.

    Args:
        features: of one class; μ is their mean.
        count: at most the number of rows.
    """
    mean, norms = features.mean(0), features.square().sum(1)
    total, chosen = torch.zeros_like(mean), list[int]()
    for k in range(1, count + 1):
        cost = norms - 2 * features @ (k * mean - total)
        cost[chosen] = torch.inf
        chosen.append(int(cost.argmin()))
        total += features[chosen[-1]]
    return torch.tensor(chosen)
