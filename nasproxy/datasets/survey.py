"""What the headers of a source's images say, before any pixel is decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from nasproxy.datasets.decoding import GRAY_MODES, TRANSPARENT_MODES
from nasproxy.datasets.resizing import Size


@dataclass
class Survey:
    """How often each (height, width) and each Pillow mode occurs among the readable images.

    Args:
        sizes: of each size, how many.
        modes: likewise.
        gray: whether every image is, those that had a sound header alone included.
    """

    sizes: Counter[Size] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    gray: bool = True

    def add(self, mode: str, size: Size, count: int = 1) -> None:
        """Counts images."""
        self.modes[mode] += count
        self.sizes[size] += count
        self.gray &= mode in GRAY_MODES

    def remove(self, mode: str, size: Size) -> None:
        """Counts an image no more whose pixels cannot be decoded; what was decided by its header stays."""
        self.modes -= Counter([mode])
        self.sizes -= Counter([size])

    @classmethod
    def union(cls, surveys: Iterable[Survey]) -> Survey:
        """The counts of all ``surveys`` together."""
        total = cls()
        for survey in surveys:
            total.sizes.update(survey.sizes)
            total.modes.update(survey.modes)
            total.gray &= survey.gray
        return total

    @property
    def channels(self) -> int:
        """1 where every image is gray, else 3."""
        return 1 if self.gray else 3

    def mode_notes(self) -> list[str]:
        """What the user should know about the conversion to ``channels``, if any image needed it."""
        if set(self.modes) <= {"L" if self.channels == 1 else "RGB"}:
            return []
        found = ", ".join(f"{mode} ({count:,})" for mode, count in sorted(self.modes.items()))
        lost = "; transparency was dropped" if TRANSPARENT_MODES & set(self.modes) else ""
        kind = "gray" if self.channels == 1 else "RGB"
        return [f"Images of mode {found} were converted to 8-bit {kind}{lost}."]

    def size_notes(self, size: Size) -> list[str]:
        """What the user should know where nasproxy, not they, decided on ``size`` and some image had another."""
        if set(self.sizes) <= {size}:
            return []
        ordered = sorted(self.sizes, key=lambda s: (s[0] * s[1], s))
        smallest, largest = (f"{height}x{width}" for height, width in (ordered[0], ordered[-1]))
        found = f"{len(ordered)} sizes from {smallest} to {largest}" if len(ordered) > 1 else smallest
        return [f"Images of {found} pixels (height x width) were resized to {size[0]}x{size[1]}; see --image-size."]
