"""Dataset condensation by gradient matching: Algorithm 1 of Zhao, Mopuri & Bilen (2021), from top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nasproxy.condensation.condensed import Condensed
from nasproxy.condensation.distance import layerwise_cosine_distance
from nasproxy.condensation.recipe import MatchingRecipe
from nasproxy.coresets.random import draw_per_class
from nasproxy.datasets.image_dataset import ImageDataset
from nasproxy.errors import DivergedError
from nasproxy.networks.convnet import ConvNet
from nasproxy.training.precision import autocast


def condense(
    dataset: ImageDataset,
    recipe: MatchingRecipe,
    *,
    seed: int,
    device: torch.device,
    precision: str,
    on_iteration: Callable[[int, float], None] | None = None,
) -> Condensed:
    """Learns ``recipe.ipc`` synthetic images a class whose gradients match those of real ones (Algorithm 1).

    Only the training part of ``dataset`` is seen. In bfloat16 the real images' gradients and the inner training are
    computed in that format; the synthetic images' gradients, which are differentiated again, always in float32.

    Args:
        dataset: what to condense.
        recipe: the method's settings.
        seed: of initial images, networks and batches.
        device: where to compute.
        precision: ``bfloat16`` or ``float32``.
        on_iteration: called after each outer iteration with its number (from 1) and its mean matching loss.

    Raises:
        InputError: a class has fewer training images than ``recipe.ipc``.
        DivergedError: the matching loss left the finite numbers.
    """
    began = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    real = dataset.normalisation.apply(dataset.train.images.to(device))
    by_class = [indices.to(device) for indices in dataset.train.indices_by_class(dataset.num_classes)]
    images, labels = _initial_images(dataset, recipe, generator, device)
    # Images of one class lie together, so one optimiser over all is the paper's update of each class by itself.
    optimizer = torch.optim.SGD([images], lr=recipe.image_learning_rate, momentum=recipe.image_momentum)
    losses: list[float] = []
    for iteration in range(recipe.iterations):
        network = _fresh_network(dataset, recipe, generator, device)
        loss = torch.zeros((), device=device)
        for step in range(recipe.matching_steps):
            optimizer.zero_grad()
            loss += _matching_step(network, real, by_class, images, labels, recipe, generator, precision)
            optimizer.step()
            # The last network of an iteration is thrown away: training it further would be wasted.
            if step + 1 < recipe.matching_steps:
                _train_inner(network, images.detach(), labels, recipe, generator, precision)
        # The last step's images are in no loss yet.
        if not bool(torch.isfinite(images).all()):
            loss = loss.new_tensor(torch.nan)
        losses.append(_finite(float(loss) / (recipe.matching_steps * dataset.num_classes), iteration, recipe))
        if on_iteration is not None:
            on_iteration(iteration + 1, losses[-1])
    return Condensed(images.detach().cpu(), labels.cpu(), tuple(losses), time.perf_counter() - began)


def _initial_images(
    dataset: ImageDataset, recipe: MatchingRecipe, generator: torch.Generator, device: torch.device
) -> tuple[Tensor, Tensor]:
    positions = draw_per_class(dataset, recipe.ipc, generator)
    labels = dataset.train.labels[positions]
    if recipe.initial == "real":
        images = dataset.normalisation.apply(dataset.train.images[positions])
    else:
        images = torch.randn(len(labels), dataset.channels, *dataset.image_size, generator=generator)
    return images.to(device).requires_grad_(), labels.to(device)


def _fresh_network(
    dataset: ImageDataset, recipe: MatchingRecipe, generator: torch.Generator, device: torch.device
) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        network = ConvNet(
            dataset.channels, dataset.num_classes, dataset.image_size, width=recipe.width, depth=recipe.depth
        )
    return network.to(device)


def _matching_step(
    network: nn.Module,
    real: Tensor,
    by_class: Sequence[Tensor],
    images: Tensor,
    labels: Tensor,
    recipe: MatchingRecipe,
    generator: torch.Generator,
    precision: str,
) -> Float[Tensor, ""]:
    """Adds to ``images.grad`` the gradient of the matching loss (equation 9), class by class; returns the loss."""
    parameters = list(network.parameters())
    loss = torch.zeros((), device=images.device)
    for label, members in enumerate(by_class):
        picked = members[torch.randperm(len(members), generator=generator)[: recipe.real_batch].to(members.device)]
        with autocast(precision, images.device):
            logits = network(real[picked])
        on_real = torch.autograd.grad(
            F.cross_entropy(logits.float(), labels.new_full((len(picked),), label)), parameters
        )
        mine = slice(label * recipe.ipc, (label + 1) * recipe.ipc)
        synthetic_loss = F.cross_entropy(network(images[mine]), labels[mine])
        on_synthetic = torch.autograd.grad(synthetic_loss, parameters, create_graph=True)
        distance = layerwise_cosine_distance(on_real, on_synthetic)
        distance.backward(inputs=[images])
        loss += distance.detach()
    return loss


def _train_inner(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    recipe: MatchingRecipe,
    generator: torch.Generator,
    precision: str,
) -> None:
    """``inner_epochs`` epochs of plain SGD on the synthetic set (Algorithm 1, last line of the inner loop)."""
    optimizer = torch.optim.SGD(network.parameters(), lr=recipe.network_learning_rate)
    for _ in range(recipe.inner_epochs):
        order = torch.randperm(len(labels), generator=generator).to(images.device)
        for picked in order.split(recipe.network_batch):
            optimizer.zero_grad()
            with autocast(precision, images.device):
                logits = network(images[picked])
            F.cross_entropy(logits.float(), labels[picked]).backward()
            optimizer.step()


def _finite(loss: float, iteration: int, recipe: MatchingRecipe) -> float:
    if not math.isfinite(loss):
        raise DivergedError(
            f"The matching loss became {loss} in outer iteration {iteration + 1} of {recipe.iterations}.",
            f"Lower the image learning rate (now {recipe.image_learning_rate}) or use --precision float32.",
        )
    return loss
