"""A search space of one network, whose features are the pixels times a number: it says how far images are moved."""

from __future__ import annotations

from pathlib import Path


def scaled_space(folder: Path, scale: float) -> str:
    """What ``network`` is of a condensation with it."""
    file = folder / "scaled.py"
    file.write_text(
        "from torch import nn\n\n"
        "from nasproxy import SearchSpace\n\n\n"
        "class Scaled(nn.Module):\n"
        "    def forward(self, images):\n"
        f"        return {scale} * images.flatten(1)\n\n\n"
        "class Linear(SearchSpace):\n"
        '    name = "linear"\n'
        '    choices = {"filters": [1]}\n\n'
        "    def build(self, config, *, in_channels, num_classes, image_size):\n"
        "        return nn.Sequential(Scaled(), nn.LazyLinear(num_classes))\n"
    )
    return f"space:{file}"
