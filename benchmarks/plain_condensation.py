"""Algorithm 1 of Zhao, Mopuri & Bilen (2021) written down as it reads: what condensation_speed.py compares with.

It makes the choices of the published code, which this is not: images in torch's default layout, float32, one class
after another, all real images of a class in one batch, the network's own training through a DataLoader with loss and
accuracy of every batch, the images copied before it, and no setting of the memory allocator.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from nasproxy.condensation.recipe import MatchingRecipe


def plain_convnet(channels: int, classes: int, size: int, *, width: int = 128, depth: int = 3) -> nn.Sequential:
    """The paper's default network: convolution, instance normalisation, ReLU, average pooling; one linear layer."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [
            nn.Conv2d(channels, width, 3, padding=1),
            nn.GroupNorm(width, width),
            nn.ReLU(inplace=True),
            nn.AvgPool2d(2, 2),
        ]
        channels, size = width, size // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * size * size, classes))


def outer_iteration(
    network: nn.Module,
    real: Sequence[Tensor],
    images: Tensor,
    optimizer: torch.optim.Optimizer,
    recipe: MatchingRecipe,
) -> float:
    """T matching steps of the images with one network, trained between them; returns the mean loss of a class.

    Args:
        network: a new one.
        real: each class's normalised images.
        images: the synthetic ones, classes in order.
        optimizer: of ``images``.
        recipe: its T, inner epochs, batches, network's learning rate and images per class count.
    """
    labels = torch.arange(len(real)).repeat_interleave(recipe.ipc)
    descent = torch.optim.SGD(network.parameters(), lr=recipe.network_learning_rate)
    mean = 0.0
    for step in range(recipe.matching_steps):
        loss = torch.tensor(0.0)
        for label, members in enumerate(real):
            batch = members[torch.randperm(len(members))[: recipe.real_batch]]
            mine = images[label * recipe.ipc : (label + 1) * recipe.ipc]
            loss = loss + matching_loss(network, batch, mine, label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mean += loss.item()
        if step + 1 < recipe.matching_steps:
            loader = DataLoader(
                TensorDataset(images.detach().clone(), labels), batch_size=recipe.network_batch, shuffle=True
            )
            for _ in range(recipe.inner_epochs):
                train_epoch(network, loader, descent)
    return mean / len(real) / recipe.matching_steps


def matching_loss(network: nn.Module, real: Tensor, synthetic: Tensor, label: int) -> Tensor:
    """Equation 9 for one class, with the distance of equation 10."""
    parameters = list(network.parameters())
    loss = F.cross_entropy(network(real), torch.full((len(real),), label))
    on_real = [gradient.detach().clone() for gradient in torch.autograd.grad(loss, parameters)]
    loss = F.cross_entropy(network(synthetic), torch.full((len(synthetic),), label))
    on_synthetic = torch.autograd.grad(loss, parameters, create_graph=True)
    total = torch.tensor(0.0)
    for ours, theirs in zip(on_real, on_synthetic, strict=True):
        if ours.ndim > 1:
            a, b = ours.flatten(1), theirs.flatten(1)
            cosine = (a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-6)
            total = total + (1 - cosine).sum()
    return total


def train_epoch(network: nn.Module, loader: DataLoader[tuple[Tensor, ...]], descent: torch.optim.Optimizer) -> None:
    """One epoch of the network on the synthetic images, with the loss and the accuracy of every batch."""
    seen, loss_sum, right = 0, 0.0, 0
    for images, labels in loader:
        logits = network(images)
        loss = F.cross_entropy(logits, labels)
        right += int((logits.argmax(dim=1) == labels).sum())
        loss_sum += loss.item() * len(labels)
        seen += len(labels)
        descent.zero_grad()
        loss.backward()
        descent.step()
    assert right <= seen
