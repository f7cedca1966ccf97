"""Seeds that follow from others, so that no two purposes draw the same numbers."""

from __future__ import annotations

import hashlib


def seed_from(text: str) -> int:
    """A seed in [0, 2^63), another for every text.

    Args:
        text: of all that the seed is to depend on.
    """
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1
