"""Tiny float64 networks, images for them, and derivatives by finite differences."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def batch(count: int = 6, size: int = 4, channels: int = 2, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, channels, size, size, generator=generator, dtype=torch.float64)
    return images, torch.randint(0, classes, (count,), generator=generator)


def conv_net(*, norm: bool = True, activation: type[nn.Module] = nn.ReLU, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3) if norm else nn.Identity(), activation(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(48, 3)).double()


def numerical_gradient(value: Callable[[], float], tensor: Tensor, step: float = 1e-6) -> Tensor:
    """Central differences of ``value`` in each element of ``tensor``."""
    found = torch.zeros_like(tensor)
    flat, out = tensor.detach().view(-1), found.view(-1)
    for place in range(flat.numel()):
        kept = float(flat[place])
        flat[place] = kept + step
        above = value()
        flat[place] = kept - step
        below = value()
        flat[place] = kept
        out[place] = (above - below) / (2 * step)
    return found


def loss_of(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], float]:
    def value() -> float:
        with torch.no_grad():
            return float(F.cross_entropy(model.train()(images), labels))

    return value
