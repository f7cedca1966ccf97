"""Memory that is written to again and again, so that it stays in a processor's cache."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Buffers:
    """Pieces of memory by name, each as large as the largest that was asked for.

    Args:
        dtype: of all tensors.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._buffers: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        """A tensor to write to; what was there under this name is lost."""
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < math.prod(shape):
            buffer = self._buffers[name] = torch.empty(math.prod(shape), dtype=self.dtype, device="cpu")
        return buffer[: math.prod(shape)].view(shape)
