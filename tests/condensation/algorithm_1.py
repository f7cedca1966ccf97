"""Gradient matching written a second time, with nothing of the package's own."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F


def logits(weights, images):
    """One block of the paper's default network."""
    convolution, bias, scale, shift, linear, offset = weights
    rows = F.conv2d(images, convolution, bias, padding=1)
    rows = F.avg_pool2d(F.relu(F.group_norm(rows, len(bias), scale, shift)), 2)
    return F.linear(rows.flatten(1), linear, offset)


def apart(real, synthetic):
    """Equation 10, a row at a time."""
    total = torch.zeros((), dtype=torch.float64)
    for ours, theirs in zip(real, synthetic, strict=True):
        for a, b in zip(ours, theirs, strict=True) if ours.ndim > 1 else ():
            total = total + 1 - (a * b).sum() / (a.pow(2).sum().sqrt() * b.pow(2).sum().sqrt() + 1e-6)
    return total


def unchanged(images):
    return images


def algorithm_1(dataset, recipe, first_images, first_weights, draws=None):
    """Algorithm 1 in float64, whole batches only: every class has its own images, its own step, its own momentum.

    Each of ``draws`` is what is done to the images of one matching step, real and synthetic, or of one inner step.
    """
    draws = draws or itertools.repeat(unchanged)
    train = dataset.train
    mean, std = (torch.tensor(v).double().view(1, -1, 1, 1) for v in vars(dataset.normalisation).values())
    real = (train.images.double() / 255 - mean) / std
    classes = range(dataset.num_classes)
    images = [part.double() for part in first_images.split(recipe.ipc)]
    speed = [torch.zeros_like(part) for part in images]
    losses = []
    for state in first_weights:
        weights = [value.double() for value in state.values()]
        total = 0.0
        for step in range(recipe.matching_steps):
            for c in classes:
                weights = [w.detach().requires_grad_() for w in weights]
                mine, draw = images[c].detach().requires_grad_(), next(draws)
                members = draw(real[train.labels == c])
                labels = torch.full((len(members),), c)
                on_real = torch.autograd.grad(F.cross_entropy(logits(weights, members), labels), weights)
                loss = F.cross_entropy(logits(weights, draw(mine)), torch.full((recipe.ipc,), c))
                distance = apart(on_real, torch.autograd.grad(loss, weights, create_graph=True))
                (slope,) = torch.autograd.grad(distance, mine)
                speed[c] = recipe.image_momentum * speed[c] + slope
                images[c] = images[c] - recipe.image_learning_rate * speed[c]
                total += float(distance.detach())
            for _ in range(recipe.inner_epochs if step + 1 < recipe.matching_steps else 0):
                weights = [w.detach().requires_grad_() for w in weights]
                labels = torch.arange(len(images)).repeat_interleave(recipe.ipc)
                loss = F.cross_entropy(logits(weights, next(draws)(torch.cat(images))), labels)
                slopes = torch.autograd.grad(loss, weights)
                weights = [w - recipe.network_learning_rate * s for w, s in zip(weights, slopes, strict=True)]
        losses.append(total / recipe.matching_steps / dataset.num_classes)
    return torch.cat(images), losses
