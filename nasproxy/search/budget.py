"""How long condensing and ranking may take."""

from __future__ import annotations

import math
import time


class Budget:
    """A time that runs.

    Args:
        minutes: until it is spent; None is for ever.
        began: reading of ``time.perf_counter`` from which they count; by default now.
    """

    def __init__(self, minutes: float | None = None, began: float | None = None) -> None:
        self._seconds = math.inf if minutes is None else 60 * minutes
        self._began = time.perf_counter() if began is None else began
        self._reserved = 0.0

    @property
    def limited(self) -> bool:
        """Whether it ends at all."""
        return self._seconds < math.inf

    @property
    def left(self) -> float:
        """Seconds; 0 or less when it is spent."""
        return self._seconds - self._reserved - (time.perf_counter() - self._began)

    def reserve(self, seconds: float) -> None:
        """Keeps so much for what comes after the ranking, in place of what was kept before; at most half of all."""
        self._reserved = min(seconds, self._seconds / 2)
