"""What every reader returns: the parts a source comes with, before any is cut from another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from nasproxy.datasets.image_dataset import Split

PartName = Literal["train", "validation", "test"]
"""The three parts, in the order in which messages name them."""


@dataclass(frozen=True)
class Source:
    """Decoded images of one size and channel count, in the parts that the source itself has.

    Args:
        parts: always has ``train``.
        class_names: one name a class, in label order.
        notes: what reading had to do that the user should know.
    """

    parts: Mapping[PartName, Split]
    class_names: tuple[str, ...]
    notes: Sequence[str] = field(default=())
