"""Images that occur more than once, by a hash of their pixels."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nasproxy.datasets.image_dataset import Split
from nasproxy.datasets.splitting import content_keys


@dataclass(frozen=True)
class Duplicates:
    """How many images have exactly the pixels of another.

    Args:
        within: for each part the images that repeat an earlier one of it.
        between: for each two parts the images of the second that are in the first as well.
        conflicting: pixels that carry two labels or more.
    """

    within: Mapping[str, int]
    between: Mapping[tuple[str, str], int]
    conflicting: int

    @property
    def total(self) -> int:
        """Of all counts within and between parts."""
        return sum(self.within.values()) + sum(self.between.values())


def find_duplicates(parts: Mapping[str, Split]) -> Duplicates:
    """Compares all images of ``parts``, in the order in which they are given, with each other."""
    keys = {name: content_keys(split) for name, split in parts.items()}
    distinct = {name: set(found) for name, found in keys.items()}
    labels = defaultdict[bytes, set[int]](set)
    for name, split in parts.items():
        for key, label in zip(keys[name], split.labels.tolist(), strict=True):
            labels[key].add(label)
    return Duplicates(
        within={name: len(keys[name]) - len(distinct[name]) for name in parts},
        between={
            (first, second): sum(key in distinct[first] for key in keys[second])
            for first, second in itertools.combinations(parts, 2)
        },
        conflicting=sum(len(found) > 1 for found in labels.values()),
    )


def groups_of_names(parts: Mapping[str, Split], names: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """The names of the images of equal pixels, in order; of a group that lies in several parts first."""
    found = defaultdict[bytes, list[tuple[str, str]]](list)
    for part, split in parts.items():
        for key, name in zip(content_keys(split), names[part], strict=True):
            found[key].append((part, name))
    groups = [group for group in found.values() if len(group) > 1]
    groups.sort(key=lambda group: -len({part for part, _ in group}))
    several = len(parts) > 1
    return [[f"{part}/{name}" if several else name for part, name in group] for group in groups]
