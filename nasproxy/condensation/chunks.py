"""How many real images are computed at a time."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

_PIXELS = 16_384  # 16 images of 32×32: 8 MiB for each map of 128 channels, which caches hold


def chunk_size(asked: int, images: Float[Tensor, "n c h w"]) -> int:
    """``asked``, or where it is 0 what is fast: on a CPU as many images as keep activations in its caches, else all."""
    if asked:
        return asked
    if images.device.type != "cpu":
        return max(1, len(images))
    height, width = images.shape[2:]
    return max(1, _PIXELS // (height * width))
