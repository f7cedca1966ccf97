"""Draws the pictures of gallery.md from the spaces themselves.

python docs/draw_spaces.py
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes

from nasproxy.networks.cost import count_multiply_adds, count_parameters
from nasproxy.spaces.sampling import choose_candidates
from nasproxy.spaces.source import SpaceSource
from nasproxy.spaces.space import SearchSpace

HERE = Path(__file__).parent
SPACES = {
    "convnet720": "convnet720",
    "nasbench201": "nasbench201-unique",
    "tutorial_space": str(HERE / "tutorial_space.py"),
}
SIZE = (16, 16)
SAMPLE = 200
INK, SOFT, MARK = "#1f2933", "#e4e9f0", "#2b6cb0"


def main() -> None:
    """Writes space_<name>.png for each space into a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE)
    for name, spec in SPACES.items():
        draw(SpaceSource.parse(spec).load(), parser.parse_args().out / f"space_{name}.png")


def draw(space: SearchSpace, file: Path) -> None:
    """The values of each choice on the left; the sizes of a sample of the networks on the right."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9.6, 3.2), width_ratios=(2, 1), layout="constrained", facecolor="white"
    )
    _choices(left, space)
    _sizes(right, space)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _choices(axes: Axes, space: SearchSpace) -> None:
    axes.axis("off")
    axes.set(xlim=(-0.25, 1), ylim=(len(space.choices), 0))
    for row, (name, values) in enumerate(space.choices.items()):
        axes.text(-0.25, row + 0.5, name, va="center", color=INK, fontsize=10)
        width = 1 / len(values)
        for place, value in enumerate(values):
            box = plt.Rectangle((place * width + 0.005, row + 0.12), width - 0.01, 0.76, color=SOFT)
            axes.add_patch(box)
            text = str(value)
            size = 9 if len(text) * len(values) < 45 else 7.5
            axes.text((place + 0.5) * width, row + 0.5, text, ha="center", va="center", color=INK, fontsize=size)


def _sizes(axes: Axes, space: SearchSpace) -> None:
    candidates, _ = choose_candidates(space, SIZE, limit=None, seed=0)
    candidates = random.Random(0).sample(candidates, min(SAMPLE, len(candidates)))
    points = []
    for candidate in candidates:
        with torch.device("meta"):
            network = space.build(candidate.config, in_channels=1, num_classes=10, image_size=SIZE)
        points.append((count_parameters(network), count_multiply_adds(network, 1, SIZE)))
    axes.scatter(*zip(*points, strict=True), s=9, color=MARK, alpha=0.6, linewidths=0)
    axes.set(xscale="log", yscale="log", xlabel="parameters", ylabel="multiply-adds, 16×16×1")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"{len(candidates)} of its networks", fontsize=10, loc="left", color=INK)


if __name__ == "__main__":
    main()
