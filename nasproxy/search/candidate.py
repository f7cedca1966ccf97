"""A candidate: one configuration of a search space, its identity, and the seeds that follow from it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from nasproxy.search.space import Config


@dataclass(frozen=True)
class Candidate:
    """A configuration with its id, a hash of its canonical JSON.

    Args:
        config: one value for each choice.
        id: twelve hexadecimal digits.
    """

    config: Config
    id: str

    @classmethod
    def of(cls, config: Config) -> Candidate:
        """The candidate that ``config`` describes."""
        return cls(config, _digest(config, 6).hex())

    def seed(self, run_seed: int, repeat: int, purpose: str) -> int:
        """A seed in [0, 2^63) made of the run's seed, this candidate, the repeat and the purpose.

        Neither the order of candidates nor the worker that trains one has any part in it.
        """
        return int.from_bytes(_digest([run_seed, self.id, repeat, purpose], 8)) >> 1


def _digest(value: object, size: int) -> bytes:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(canonical.encode(), digest_size=size).digest()
