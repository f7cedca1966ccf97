"""Cutting one part from another: stratified, and a function of the images alone.

Within each class, images are ordered by a hash of their pixels and the first ones are held out. Neither a seed nor
the order of files or rows enters, and one image more or less moves few others between the parts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from nasproxy.datasets.image_dataset import Split

SMALLEST_VALIDATION = 400


def validation_size(n: int) -> int:
    """How many of ``n`` training images validate: a tenth, at least 400, but never more than a third."""
    return min(max(round(n / 10), SMALLEST_VALIDATION), n // 3)


def class_quotas(counts: Sequence[int], size: int) -> list[int]:
    """How many images of each class to hold out, by the largest-remainder method.

    Args:
        counts: images of each class, each at least 2.
        size: how many images to hold out of all; a small class's one image may exceed it.

    Returns:
        For each class at least 1, at most all but one, and within 1 of its share wherever those bounds allow.
    """
    shares = [size * count / sum(counts) for count in counts]
    quotas = [min(max(1, int(share)), count - 1) for share, count in zip(shares, counts, strict=True)]
    by_remainder = sorted(range(len(counts)), key=lambda c: quotas[c] - shares[c])
    room = [c for c in by_remainder if quotas[c] < shares[c] and quotas[c] < counts[c] - 1]
    for c in room[: max(0, size - sum(quotas))]:
        quotas[c] += 1
    return quotas


def hold_out(split: Split, size: int, num_classes: int) -> tuple[Split, Split]:
    """``split`` without the held-out images, and those, each in their former order.

    Args:
        split: with at least 2 images of each class.
        size: about how many images to hold out; see ``class_quotas``.
        num_classes: labels lie below it.
    """
    by_class = split.indices_by_class(num_classes)
    quotas = class_quotas([len(positions) for positions in by_class], size)
    keys = content_keys(split)
    held = torch.zeros(len(split), dtype=torch.bool)
    for positions, quota in zip(by_class, quotas, strict=True):
        held[sorted(positions.tolist(), key=keys.__getitem__)[:quota]] = True
    return split.take(torch.nonzero(~held).flatten()), split.take(torch.nonzero(held).flatten())


def content_keys(split: Split) -> list[bytes]:
    """A hash of each image's pixels."""
    rows = split.images.flatten(1).contiguous().numpy()
    return [hashlib.blake2b(row.data, digest_size=16).digest() for row in rows]
