"""What the methods do alike: images by gradient descent, a new network in each iteration, an end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from nasproxy.condensation.augmentation import Transform, draw_transform
from nasproxy.condensation.condensed import Condensed
from nasproxy.condensation.condenser import Condenser
from nasproxy.condensation.convergence import has_converged
from nasproxy.condensation.networks import fresh_networks
from nasproxy.coresets.random import draw_per_class
from nasproxy.datasets.image_dataset import ImageDataset
from nasproxy.errors import DivergedError
from nasproxy.training.on_demand import ImagesOnDemand, normalised_on


@dataclass(frozen=True)
class Material:
    """What an outer iteration works on, besides its network.

    Args:
        real: normalised training images.
        by_class: the positions in ``real`` of each class.
        images: the synthetic images, classes in order and equally many of each; they are learnt.
        labels: theirs.
        augmentations: the kinds that a matching step draws from.
        generator: of everything drawn at random, on the CPU.
        precision: ``bfloat16`` or ``float32``.
    """

    real: Float[Tensor, "n c h w"] | ImagesOnDemand
    by_class: Sequence[Tensor]
    images: Float[Tensor, "m c h w"]
    labels: Int64[Tensor, " m"]
    augmentations: tuple[str, ...]
    generator: torch.Generator
    precision: str

    def real_batch(self, label: int, size: int) -> Float[Tensor, "b c h w"]:
        """``size`` different random real images of one class; all where there are fewer."""
        members = self.by_class[label]
        picked = torch.randperm(len(members), generator=self.generator)[:size]
        return self.real[members[picked.to(members.device)]]

    def of_class(self, label: int) -> slice:
        """The positions in ``images`` of one class."""
        ipc = len(self.labels) // len(self.by_class)
        return slice(label * ipc, (label + 1) * ipc)

    def draw_transform(self) -> Transform:
        """One augmentation with its parameters."""
        height, width = self.images.shape[2:]
        return draw_transform(self.augmentations, (height, width), self.generator)


Iterate = Callable[[nn.Module, Material, torch.optim.Optimizer], float]
"""One outer iteration: moves the images that the optimiser holds, returns the mean loss."""


def condense_by(
    iterate: Iterate,
    dataset: ImageDataset,
    recipe: Condenser,
    *,
    seed: int,
    device: torch.device,
    precision: str,
    on_iteration: Callable[[int, float], None] | None = None,
) -> Condensed:
    """Learns ``recipe.ipc`` synthetic images a class.

    Only the training part of ``dataset`` is seen.

    Args:
        iterate: what is done with each network.
        dataset: what to condense.
        recipe: the method's settings.
        seed: of initial images, networks and batches.
        device: where to compute.
        precision: ``bfloat16`` or ``float32``.
        on_iteration: called after each outer iteration with its number (from 1) and its loss.

    Raises:
        InputError: a class has fewer training images than ``recipe.ipc``, or the images are too small for a network.
        DivergedError: the loss left the finite numbers.
    """
    began = time.perf_counter()
    losses: list[float] = []
    # Dropout in a network of the user's draws from torch's own generator.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        material = _material(dataset, recipe, seed, device, precision)
        networks = fresh_networks(dataset, recipe, material.generator, device)
        optimizer = torch.optim.SGD([material.images], lr=recipe.image_learning_rate, momentum=recipe.image_momentum)
        while len(losses) < recipe.iterations and not has_converged(losses, recipe.patience):
            with networks.fresh() as network:
                loss = iterate(network, material, optimizer)
            # The last step's images are in no loss yet.
            finite = bool(torch.isfinite(material.images).all())
            losses.append(_finite(loss if finite else math.nan, len(losses), recipe))
            if on_iteration is not None:
                on_iteration(len(losses), losses[-1])
    images, labels = material.images.detach().cpu(), material.labels.cpu()
    return Condensed(images, labels, tuple(losses), time.perf_counter() - began)


def _material(dataset: ImageDataset, recipe: Condenser, seed: int, device: torch.device, precision: str) -> Material:
    generator = torch.Generator().manual_seed(seed)
    images, labels = _initial_images(dataset, recipe, generator)
    return Material(
        real=normalised_on(device, dataset.train.images, dataset.normalisation),
        by_class=[indices.to(device) for indices in dataset.train.indices_by_class(dataset.num_classes)],
        images=images.to(device).requires_grad_(),
        labels=labels.to(device),
        augmentations=recipe.augmentations(dataset),
        generator=generator,
        precision=precision,
    )


def _initial_images(
    dataset: ImageDataset, recipe: Condenser, generator: torch.Generator
) -> tuple[Float[Tensor, "m c h w"], Int64[Tensor, " m"]]:
    positions = draw_per_class(dataset, recipe.ipc, generator)
    labels = dataset.train.labels[positions]
    if recipe.initial == "real":
        return dataset.normalisation.apply(dataset.train.images[positions]), labels
    return torch.randn(len(labels), dataset.channels, *dataset.image_size, generator=generator), labels


def _finite(loss: float, iteration: int, recipe: Condenser) -> float:
    if not math.isfinite(loss):
        raise DivergedError(
            f"The matching loss became {loss} in outer iteration {iteration + 1} of {recipe.iterations}.",
            f"Lower the image learning rate (now {recipe.image_learning_rate}) or use --precision float32.",
        )
    return loss
