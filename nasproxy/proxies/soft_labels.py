"""Soft labels: the class probabilities that a network trained on the whole training part gives to a proxy's images.

As in knowledge distillation (Hinton, Vinyals & Dean 2015, section 2) at temperature 1. Candidates aim at them by
cross-entropy. The classes of the images stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nasproxy.coresets.trained_coreset import TrainedCoreset
from nasproxy.coresets.whole_training import (
    WholeRecipe,
    WholeTraining,
    expected_seconds,
    kept_training,
    trained_on_whole,
)
from nasproxy.datasets.image_dataset import ImageDataset
from nasproxy.proxies.method import ProxyMethod
from nasproxy.proxies.proxy_set import ProxySet

_BATCH = 256


@dataclass(frozen=True)
class Teacher:
    """The network that labels: the one that coresets are chosen by, from the same cache.

    Args:
        training: on the whole training part.
        dataset: of that.
        facts: see :func:`teacher_facts`.
    """

    training: WholeTraining
    dataset: ImageDataset
    facts: dict[str, Any]

    @classmethod
    def of(
        cls,
        dataset: ImageDataset,
        recipe: WholeRecipe,
        *,
        seed: int,
        device: torch.device,
        precision: str,
        on_epoch: Callable[[int, float], None] | None = None,
    ) -> Teacher:
        """Trains it, unless it was trained before.

        Raises:
            InputError: the images are too small for the network.
            DivergedError: its loss left the finite numbers.
            WriteError: the cache cannot be written.
        """
        where: Any = {"seed": seed, "device": device, "precision": precision}
        training = trained_on_whole(dataset, recipe, **where, on_epoch=on_epoch)
        return cls(training, dataset, teacher_facts(recipe, **where))

    @torch.no_grad()
    def soft_labels(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """The probability of each class, by float32, whatever the network was trained in.

        Args:
            images: normalised, on any device; the result is on the same.
        """
        network = self.training.network
        device = next(network.parameters()).device
        logits = torch.cat([network(few.to(device)) for few in images.split(_BATCH)])
        return logits.softmax(dim=1).to(images.device)

    def label(self, proxy: ProxySet) -> ProxySet:
        """``proxy`` with soft labels, which its recipe names under ``soft_labels``; the time of training is added.

        Raises:
            ProxyError: it was made from another dataset.
        """
        proxy.check_matches(self.dataset)
        counted = self.facts.items() <= proxy.recipe.items()  # a coreset that was chosen by this very training
        return replace(
            proxy,
            soft_labels=self.soft_labels(proxy.images),
            recipe={**proxy.recipe, "soft_labels": self.facts},
            seconds=proxy.seconds + (0.0 if counted else self.training.seconds),
        )


def teacher_facts(recipe: WholeRecipe, *, seed: int, device: torch.device, precision: str) -> dict[str, Any]:
    """All that a teacher's training depends on besides the data; JSON values."""
    return {**asdict(recipe), "seed": seed, "device": device.type, "precision": precision}


def softness(proxy: ProxySet) -> dict[str, float] | None:
    """How far soft labels are from the classes; None where there are none.

    Returns:
        ``entropy``, the mean over the images in nats, 0 where labels are as hard as classes; ``agreement``, the share
        of images whose most probable class is their own.
    """
    if proxy.soft_labels is None:
        return None
    entropy = torch.special.entr(proxy.soft_labels).sum(dim=1).mean()
    agreement = (proxy.soft_labels.argmax(dim=1) == proxy.labels).float().mean()
    return {"entropy": float(entropy), "agreement": float(agreement)}


def teacher_seconds(
    dataset: ImageDataset,
    recipe: WholeRecipe,
    method: ProxyMethod | None,
    *,
    seed: int,
    device: torch.device,
    precision: str,
) -> float:
    """How long training the teacher of ``method``'s images takes on this machine; 0 if that is done anyway."""
    shared = isinstance(method, TrainedCoreset) and method.training == recipe
    if shared or kept_training(dataset, recipe, seed=seed, device=device, precision=precision).exists():
        return 0.0
    return expected_seconds(dataset, recipe, device=device, precision=precision)
