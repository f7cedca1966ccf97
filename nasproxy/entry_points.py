"""What installed packages register under one name."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint


def by_package(entries: Iterable[EntryPoint]) -> dict[str, EntryPoint]:
    """Each package's entry point, sorted by package; a package that is found twice on the path counts once."""
    found = {entry.dist.name if entry.dist else entry.value: entry for entry in entries}
    return dict(sorted(found.items()))
