"""A search space in thirty lines: small residual networks whose blocks mix kernel sizes.

    nasproxy spaces check docs/tutorial_space.py
    nasproxy search --space docs/tutorial_space.py --limit 60

A function asks an Optuna trial, as an objective of Optuna's does, and returns a function that builds the network. Each
block has kernel sizes of its own, so that a deeper network asks more: 2 widths, and 4 + 16 + 64 ways to fill one, two
or three blocks, make 168 candidates.
"""

import torch
from torch import nn


def mixed_kernels(trial):
    """One to three residual blocks of one width; each has one kernel size or two side by side."""
    width = trial.suggest_categorical("width", [16, 32])
    depth = trial.suggest_int("depth", 1, 3)
    kernels = [trial.suggest_categorical(f"kernels_{number}", ["3", "5", "1+3", "3+5"]) for number in range(depth)]

    def build(*, in_channels, num_classes, image_size):  # noqa: ARG001, images of any size will do
        layers = [nn.Conv2d(in_channels, width, 3, padding=1)]
        for sizes in kernels:
            layers += [Block(width, sizes), nn.AvgPool2d(2, ceil_mode=True)]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))

    return build


class Block(nn.Module):
    """Its input, and beside it a convolution of each kernel size: all added up."""

    def __init__(self, width, sizes):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, int(size), padding=int(size) // 2, bias=False), nn.BatchNorm2d(width))
            for size in sizes.split("+")
        )

    def forward(self, features):
        """The sum, rectified."""
        total = features
        for branch in self.branches:
            total = total + branch(features)
        return torch.relu(total)
