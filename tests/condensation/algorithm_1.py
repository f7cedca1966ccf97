"""A second implementation of gradient matching, as plain as can be."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def logits(weights, images, statistics=None):
    """One block of the paper's default network; with batch normalisation where there are ``statistics``."""
    _, bias, scale, shift, linear, offset = weights
    rows = convolved(weights, images)
    if statistics is None:
        rows = F.group_norm(rows, len(bias), scale, shift)
    else:
        mean, variance, scale, shift = (values.view(1, -1, 1, 1) for values in (*statistics, scale, shift))
        rows = (rows - mean) / (variance + 1e-5).sqrt() * scale + shift
    return F.linear(F.avg_pool2d(F.relu(rows), 2).flatten(1), linear, offset)


def convolved(weights, images):
    return F.conv2d(images, *weights[:2], padding=1)


def statistics_of(weights, images, *, unbiased):
    rows = convolved(weights, images).transpose(0, 1).flatten(1)
    return rows.mean(dim=1), rows.var(dim=1, unbiased=unbiased)


def moved(averages, weights, images):
    """Moving averages, a tenth of the way towards the statistics of ``images``."""
    found = statistics_of(weights, images, unbiased=True)
    return [0.9 * old + 0.1 * new.detach() for old, new in zip(averages, found, strict=True)]


def apart(real, synthetic):
    """Equation 10, a row at a time."""
    total = torch.zeros((), dtype=torch.float64)
    for ours, theirs in zip(real, synthetic, strict=True):
        for a, b in zip(ours, theirs, strict=True) if ours.ndim > 1 else ():
            total = total + 1 - (a * b).sum() / (a.pow(2).sum().sqrt() * b.pow(2).sum().sqrt() + 1e-6)
    return total


def algorithm_1(dataset, recipe, first_images, first_weights, augment=lambda images: images):
    """Algorithm 1 in float64, whole batches only: every class has its own images, its own step, its own momentum.

    ``augment`` is called for every batch in turn: with the real and then the synthetic images of a class as one batch,
    and with all synthetic ones for each inner epoch.

    Batch normalisation stands still in a matching step, at averages that all real images have moved: no class may have
    more than 16.
    """
    train = dataset.train
    mean, std = (torch.tensor(v).double().view(1, -1, 1, 1) for v in vars(dataset.normalisation).values())
    real = (train.images.double() / 255 - mean) / std
    classes = range(dataset.num_classes)
    images = [part.double() for part in first_images.split(recipe.ipc)]
    speed = [torch.zeros_like(part) for part in images]
    losses = []
    for state in first_weights:
        averages = [value.double() for name, value in state.items() if "running" in name] or None
        names = [name for name in state if "running" not in name and "tracked" not in name]
        weights = [state[name].double() for name in names]
        total = 0.0
        for step in range(recipe.matching_steps):
            if averages:
                averages = moved(averages, weights, real)
            for c in classes:
                weights = [w.detach().requires_grad_() for w in weights]
                mine = images[c].detach().requires_grad_()
                members = real[train.labels == c]
                members, ours = augment(torch.cat([members, mine])).split([len(members), len(mine)])
                labels = torch.full((len(members),), c)
                on_real = torch.autograd.grad(
                    F.cross_entropy(logits(weights, members.detach(), averages), labels), weights
                )
                loss = F.cross_entropy(logits(weights, ours, averages), torch.full((recipe.ipc,), c))
                distance = apart(on_real, torch.autograd.grad(loss, weights, create_graph=True))
                (slope,) = torch.autograd.grad(distance, mine)
                speed[c] = recipe.image_momentum * speed[c] + slope
                images[c] = images[c] - recipe.image_learning_rate * speed[c]
                total += float(distance.detach())
            for _ in range(recipe.inner_epochs if step + 1 < recipe.matching_steps else 0):
                weights = [w.detach().requires_grad_() for w in weights]
                labels = torch.arange(len(images)).repeat_interleave(recipe.ipc)
                batch = augment(torch.cat(images))
                own = statistics_of(weights, batch, unbiased=False) if averages else None
                averages = moved(averages, weights, batch) if averages else None
                loss = F.cross_entropy(logits(weights, batch, own), labels)
                slopes = torch.autograd.grad(loss, weights)
                weights = [w - recipe.network_learning_rate * s for w, s in zip(weights, slopes, strict=True)]
        losses.append(total / recipe.matching_steps / dataset.num_classes)
    return torch.cat(images), losses
