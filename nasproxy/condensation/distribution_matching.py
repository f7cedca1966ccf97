"""Dataset condensation by distribution matching: Zhao & Bilen, WACV 2023, from top to bottom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nasproxy.condensation.augmented import Augmented
from nasproxy.condensation.chunks import chunk_size
from nasproxy.condensation.frozen_statistics import SHOWN
from nasproxy.condensation.outer_loop import Iterate, Material
from nasproxy.datasets.image_dataset import ImageDataset
from nasproxy.errors import InputError
from nasproxy.networks.classifier import extra_padding
from nasproxy.networks.names import CONVNET
from nasproxy.training.precision import autocast
from nasproxy.training.train import Images, batch_norms, goes_by_its_batch, settled_statistics

_WIDTH, _DEPTH = 128, 3  # of the default ConvNet

LARGEST_STEP = 0.005
"""Root mean square over pixels, at a learning rate of 1, that any network but the ConvNet moves the images by at most.

By the default ConvNet steps are of 0.001 to 0.007 on digits and CIFAR-10 (JPEG) at 16×16; by some networks of a space,
whose features nothing normalises, hundreds of times as large, and a single one throws away what the others have learnt.
So do VGG-11 and ResNet-18, whose batch normalisation divides by how little a few images differ in deep layers.
"""


@dataclass(frozen=True)
class DistributionRecipe(Augmented):
    """Settings of distribution matching: those of :class:`Augmented`. One iteration is one step of the images."""

    name: ClassVar[str] = "dm"

    iterations: int = 20_000
    image_learning_rate: float = 1.0
    initial: str = "real"

    @classmethod
    def preset(cls, preset: str, ipc: int) -> DistributionRecipe:
        """``quick`` is about a minute on two cores for 16×16 images; ``paper`` is the defaults."""
        return cls(ipc=ipc, iterations=200) if preset == "quick" else cls(ipc=ipc)

    def iteration(self, dataset: ImageDataset) -> Iterate:
        """See :func:`match_features`."""
        # Networks of a space have from a few to tens of thousands of features; the sum over so many would be a step
        # that throws the images far away.
        like = _default_features(dataset.channels, dataset.image_size) if self.draws_from_space else None
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
    """One step of the images towards the mean features of real ones of their class, in one random network.

    By any network but the ConvNet the step is bounded by :data:`LARGEST_STEP`. In bfloat16 only the real images'
    features are computed in that format.

    Args:
        network: freshly made.
        material: of the images to be moved, and of the real ones.
        optimizer: of the former.
        recipe: the settings.
        like: for a network of a space, see :func:`distribution_loss`.

    Returns:
        The mean loss of a class.
    """
    network.requires_grad_(False)
    optimizer.zero_grad()
    classes = range(len(material.by_class))
    # Nothing but batch normalisation sees more than one class, and one at a time takes the least memory.
    groups = [list(classes)] if batch_norms(network) else [[label] for label in classes]
    loss = torch.zeros((), device=material.images.device)
    for group in groups:
        real, synthetic = zip(*(_pair(material, label, recipe) for label in group), strict=True)
        distance = distribution_loss(
            network, real, synthetic, precision=material.precision, chunk=recipe.chunk, like=like
        )
        distance.backward(inputs=[material.images])
        loss += distance.detach()
    if recipe.network != CONVNET:
        material.bound_step(LARGEST_STEP)
    optimizer.step()
    return float(loss) / len(classes)


def _pair(
    material: Material, label: int, recipe: DistributionRecipe
) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "m c h w"]]:
    """Real and synthetic images of one class, alike augmented."""
    real = material.real_batch(label, recipe.real_batch)
    transform = material.draw_transform()
    return transform(real), transform(material.images[material.of_class(label)])


def distribution_loss(
    network: nn.Module,
    real: Sequence[Float[Tensor, "_ c h w"]],
    synthetic: Sequence[Float[Tensor, "_ c h w"]],
    *,
    precision: str,
    chunk: int = 0,
    like: int | None = None,
) -> Float[Tensor, ""]:
    """Squared Euclidean distance between the mean features of real and of synthetic images, summed over classes.

    Batch normalisation sees the real images under their own statistics, estimated from 16 of each class, and the
    synthetic ones, all classes in one batch, under theirs; the published code has all real images in one batch, too.
    Under real images' statistics synthetic ones drift away, as what they are normalised by does not follow them.
    Layers that keep no moving averages have all real images in one batch, whatever ``chunk`` is.

    Args:
        network: put into evaluation mode, but for its batch normalisation.
        real: images of each class.
        synthetic: images of each class; the loss is differentiable in these.
        precision: of the real images' features.
        chunk: how many real images are computed at a time, see :func:`nasproxy.condensation.chunks.chunk_size`.
        like: weigh the distance as if it were one between so many features.

    Raises:
        InputError: the network ends in no linear layer.
    """
    with settled_statistics(network, _mixed(real), precision):
        # Layers that keep no statistics see all classes at once, as they do of the synthetic images.
        together = goes_by_its_batch(network)
        wanted = _mean_of_batch(network, real, precision) if together else _means(network, real, precision, chunk)
    network.eval()
    for norm in batch_norms(network):
        norm.train()
    found = features(network, torch.cat(list(synthetic))).split([len(images) for images in synthetic])
    apart = wanted - torch.stack([rows.mean(dim=0) for rows in found])
    squares = apart.square().sum()
    return squares if like is None else squares * (like / apart.shape[1])


def _mixed(real: Sequence[Float[Tensor, "_ c h w"]]) -> Images:
    """A few images of each class, classes in turn: statistics of many are averaged over several batches."""
    shown = [images[:SHOWN] for images in real]
    turn = torch.cat([torch.arange(len(images)) for images in shown]).argsort(stable=True)
    images = torch.cat(shown)[turn.to(shown[0].device)]
    return Images(images, torch.zeros(len(images), dtype=torch.int64, device=images.device))


def _default_features(channels: int, image_size: tuple[int, int]) -> int:
    """How many features the default ConvNet has, which the paper's learning rate was chosen for."""
    height, width = (side + 2 * extra_padding(channels, image_size) for side in image_size)
    return _WIDTH * max(1, height >> _DEPTH) * max(1, width >> _DEPTH)


@torch.no_grad()
def _means(
    network: nn.Module, classes: Sequence[Float[Tensor, "_ c h w"]], precision: str, chunk: int
) -> Float[Tensor, "classes f"]:
    """Mean features of each class, some images at a time."""
    means = []
    with autocast(precision, classes[0].device, exact=True):
        for images in classes:
            parts = images.split(chunk_size(chunk, images))
            sums = [features(network, part).float().sum(dim=0) for part in parts]
            means.append(torch.stack(sums).sum(dim=0) / len(images))
    return torch.stack(means)


@torch.no_grad()
def _mean_of_batch(
    network: nn.Module, classes: Sequence[Float[Tensor, "_ c h w"]], precision: str
) -> Float[Tensor, "classes f"]:
    """Mean features of each class, all images as one batch."""
    with autocast(precision, classes[0].device, exact=True):
        rows = features(network, torch.cat(list(classes))).float()
    return torch.stack([part.mean(dim=0) for part in rows.split([len(images) for images in classes])])


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
