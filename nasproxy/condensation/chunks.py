"""How many real images are computed at a time."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

_PIXELS = 32_768  # 32 images of 32×32: 16 MiB for a map of 128 channels, fresh memory for which is still kept at hand


def chunk_size(asked: int, images: Float[Tensor, "n c h w"]) -> int:
    """``asked``, or where it is 0 what is fast: on a CPU as many images as keep activations in its caches, else all.

    What is chosen divides the images evenly: the fewer in a chunk, the dearer each.
    """
    if asked:
        return asked
    height, width = images.shape[2:]
    most = max(1, _PIXELS // (height * width) if images.device.type == "cpu" else len(images))
    chunks = max(1, -(-len(images) // most))
    return max(1, -(-len(images) // chunks))
