"""Who of a rung goes on whatever the others come to: the next rung need not keep them waiting."""

from __future__ import annotations

import bisect

from nasproxy.search.standings import Place
from nasproxy.spaces.candidate import Candidate


class Promotion:
    """Keeps count of a rung of successive halving while its trainings end.

    Of those measured so far, the best ``keep`` less as many as are still in training go on for certain: they would
    even if each of the others came before them. A failure only leaves one less to come before.

    Args:
        competitors: how many take part in the rung.
        keep: how many of them go on.
    """

    def __init__(self, competitors: int, keep: int) -> None:
        self._certain = keep - competitors
        self._best: list[tuple[Place, Candidate]] = []

    def add(self, candidate: Candidate, place: Place | None) -> Candidate | None:
        """Takes in one more that is measured, and returns who is certain since then: it, another, or nobody.

        Args:
            candidate: that is measured now, and was not before.
            place: in the order of the rung; None where it failed.
        """
        self._certain += 1
        last = self._certain - 1
        if place is not None:
            position = bisect.bisect(self._best, (place, candidate))
            self._best.insert(position, (place, candidate))
            if position <= last:
                return candidate
        return self._best[last][1] if 0 <= last < len(self._best) else None
