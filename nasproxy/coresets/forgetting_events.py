"""How often a network forgets each image while it learns (Toneva et al. 2019, definition in section 3)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


class ForgettingEvents:
    """Counts for each image how often it goes from rightly to wrongly classified between consecutive presentations.

    Args:
        images: how many there are.
        device: where predictions come from.
    """

    def __init__(self, images: int, device: torch.device) -> None:
        self._events = torch.zeros(images, dtype=torch.int64, device=device)
        self._right, self._learnt = (torch.zeros(images, dtype=torch.bool, device=device) for _ in range(2))

    def see(self, positions: Int64[Tensor, " batch"], right: Bool[Tensor, " batch"]) -> None:
        """One presentation of the images at ``positions``, each of them there once."""
        self._events[positions] += (self._right[positions] & ~right).long()
        self._learnt[positions] |= right
        self._right[positions] = right

    def counts(self) -> Float[Tensor, " n"]:
        """Forgetting events, on the CPU; infinitely many for an image that was never learnt, as the authors have it."""
        return self._events.float().masked_fill(~self._learnt, torch.inf).cpu()
