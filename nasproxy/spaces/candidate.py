"""A candidate: one configuration of a search space, its identity, and the seeds that follow from it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from nasproxy.seeds import seed_from
from nasproxy.spaces.space import Config


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
        return cls(config, hashlib.blake2b(_canonical(config).encode(), digest_size=6).hexdigest())

    def seed(self, run_seed: int, repeat: int, purpose: str) -> int:
        """A seed in [0, 2^63) made of the run's seed, this candidate, the repeat and the purpose.

        Neither the order of candidates nor the worker that trains one has any part in it.
        """
        return seed_from(_canonical([run_seed, self.id, repeat, purpose]))


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
