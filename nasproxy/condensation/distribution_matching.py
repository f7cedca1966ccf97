"""Dataset condensation by distribution matching: Zhao & Bilen, WACV 2023, from top to bottom."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nasproxy.condensation.chunks import chunk_size
from nasproxy.condensation.condenser import Condenser
from nasproxy.condensation.convnet_gradients import ConvNetGradients, has_written_gradients
from nasproxy.condensation.frozen_statistics import frozen_statistics
from nasproxy.condensation.outer_loop import Iterate, Material
from nasproxy.datasets.image_dataset import ImageDataset
from nasproxy.errors import InputError
from nasproxy.training.precision import autocast
from nasproxy.training.strategy import AUTO, parse_strategy, strategy_of

_WIDTH, _DEPTH = 128, 3  # of the default ConvNet

LARGEST_STEP = 0.005
"""Root mean square over pixels, at a learning rate of 1, that a network of a space moves the images by at most.

By the default ConvNet steps are of 0.001 to 0.007 on digits and CIFAR-10 (JPEG) at 16×16; by some networks of a space,
whose features nothing normalises, hundreds of times as large, and a single one throws away what the others have learnt.
"""


@dataclass(frozen=True)
class DistributionRecipe(Condenser):
    """Settings of distribution matching besides those of :class:`Condenser`. One iteration is one step of the images.

    Args:
        augmentation: kinds joined by hyphens, ``none``, or ``auto``, see
            :func:`nasproxy.training.strategy.parse_strategy`; the same draw for real and synthetic images.
    """

    name: ClassVar[str] = "dm"

    iterations: int = 20_000
    image_learning_rate: float = 1.0
    initial: str = "real"
    augmentation: str = AUTO

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_strategy(self.augmentation, "")

    @classmethod
    def preset(cls, preset: str, ipc: int) -> DistributionRecipe:
        """``quick`` is about a minute on two cores for 16×16 images; ``paper`` is the defaults."""
        return cls(ipc=ipc, iterations=200) if preset == "quick" else cls(ipc=ipc)

    def augmentations(self, dataset: ImageDataset) -> tuple[str, ...]:
        """Those of the strategy."""
        return parse_strategy(self.augmentation, dataset.name)

    def for_dataset(self, dataset: ImageDataset) -> DistributionRecipe:
        """With the augmentations that ``auto`` stands for."""
        return replace(self, augmentation=strategy_of(self.augmentations(dataset)))

    def iteration(self, dataset: ImageDataset) -> Iterate:
        """See :func:`match_features`."""
        # Networks of a space have from a few to tens of thousands of features; the sum over so many would be a step
        # that throws the images far away.
        like = _default_features(dataset.image_size) if self.draws_from_space else None
        return partial(match_features, recipe=self, like=like)

    def expected_seconds(self, dataset: ImageDataset, *, device: torch.device, precision: str) -> float:
        """By one iteration."""
        self._seconds_per_iteration(dataset, device, precision)  # the first also compiles kernels
        return self.iterations * self._seconds_per_iteration(dataset, device, precision)


def match_features(
    network: nn.Module,
    material: Material,
    optimizer: torch.optim.Optimizer,
    *,
    recipe: DistributionRecipe,
    like: int | None,
) -> float:
    """One step of the images towards the mean features of real ones, class by class, in one random network.

    In bfloat16 only the real images' features are computed in that format.

    Args:
        network: in training mode.
        material: of the images to be moved, and of the real ones.
        optimizer: of the former.
        recipe: the settings.
        like: for a network of a space, see :func:`distribution_loss`; and its step is bounded by :data:`LARGEST_STEP`.

    Returns:
        The mean loss of a class.
    """
    network.requires_grad_(False)
    optimizer.zero_grad()
    loss = torch.zeros((), device=material.images.device)
    with frozen_statistics(
        network, material.real, material.by_class, material.generator, material.precision, settled=True
    ):
        for label in range(len(material.by_class)):
            real, mine = material.real_batch(label, recipe.real_batch), material.of_class(label)
            transform = material.draw_transform()
            distance = distribution_loss(
                network,
                transform(real),
                transform(material.images[mine]),
                precision=material.precision,
                chunk=recipe.chunk,
                like=like,
            )
            distance.backward(inputs=[material.images])
            loss += distance.detach()
    if like is not None:
        material.bound_step(LARGEST_STEP)
    optimizer.step()
    return float(loss) / len(material.by_class)


def distribution_loss(
    network: nn.Module,
    real: Float[Tensor, "n c h w"],
    synthetic: Float[Tensor, "m c h w"],
    *,
    precision: str,
    chunk: int = 0,
    like: int | None = None,
) -> Float[Tensor, ""]:
    """Squared Euclidean distance between the mean features of two batches.

    Args:
        network: in the mode that both are to be seen in.
        real: images of one class.
        synthetic: images of the same class; the loss is differentiable in these.
        precision: of the real images' features.
        chunk: how many real images are computed at a time, see :func:`nasproxy.condensation.chunks.chunk_size`; a
            network in training mode sees all.
        like: weigh the distance as if it were one between so many features.

    Raises:
        InputError: the network ends in no linear layer.
    """
    apart = _mean_features(network, real, precision, chunk) - features(network, synthetic).mean(dim=0)
    return apart.square().sum() if like is None else like * apart.square().mean()


def _default_features(image_size: tuple[int, int]) -> int:
    """How many features the default ConvNet has, which the paper's learning rate was chosen for."""
    height, width = image_size
    return _WIDTH * max(1, height >> _DEPTH) * max(1, width >> _DEPTH)


@torch.no_grad()
def _mean_features(
    network: nn.Module, images: Float[Tensor, "n c h w"], precision: str, chunk: int
) -> Float[Tensor, " f"]:
    parts = images.split(len(images) if network.training else chunk_size(chunk, images))
    if has_written_gradients(network, images):
        written = ConvNetGradients(network, precision)
        sums = [written.embed(part).sum(dim=0) for part in parts]
    else:
        with autocast(precision, images.device):
            sums = [features(network, part).float().sum(dim=0) for part in parts]
    return torch.stack(sums).sum(dim=0) / len(images)


def features(network: nn.Module, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n f"]:
    """What the last linear layer of ``network`` is given, one row an image.

    Raises:
        InputError: the network calls no linear layer.
    """
    given: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        given[:] = inputs[:1]

    hooks = [m.register_forward_pre_hook(keep) for m in network.modules() if isinstance(m, nn.Linear)]
    try:
        network(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not given:
        raise InputError(
            f"The network {type(network).__name__} has no linear layer, whose input would be its features.",
            "Use --method dc or dsa, or leave it out of the space.",
        )
    return given[0].flatten(1)
