"""A dataset of a few small images in three parts, for tests that need one but not a particular one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from nasproxy.datasets.assemble import assemble
from nasproxy.datasets.image_dataset import ImageDataset, Split
from nasproxy.datasets.source import Source


def tiny_dataset(
    counts: Sequence[int] = (7, 5), *, size: tuple[int, int] = (8, 8), channels: int = 1, seed: int = 0
) -> ImageDataset:
    """Noisy images around one random pattern a class; ``counts`` are the training images of each class.

    Labels are mixed, so that no test passes only because the classes happen to lie in order.
    """
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randint(64, 192, (len(counts), channels, *size), generator=generator)

    def part(numbers: Sequence[int]) -> Split:
        labels = torch.cat([torch.full((n,), c) for c, n in enumerate(numbers)])
        labels = labels[torch.randperm(len(labels), generator=generator)]
        noise = torch.randint(-60, 61, (len(labels), channels, *size), generator=generator)
        return Split((patterns[labels] + noise).to(torch.uint8), labels)

    names = tuple(f"class {c}" for c in range(len(counts)))
    few = [3] * len(counts)
    return assemble("tiny", Source({"train": part(counts), "validation": part(few), "test": part(few)}, names))


def with_other_held_out_images(dataset: ImageDataset) -> ImageDataset:
    """The same training part; the other two hold inverted images under shuffled labels."""

    def spoil(split: Split) -> Split:
        return Split(255 - split.images, split.labels.roll(1))

    return replace(dataset, validation=spoil(dataset.validation), test=spoil(dataset.test))
