"""What torch itself does of a 3×3 convolution, where a faster one of ours is part of it or stands in its place."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]
"""Of images, weight and bias; None was not asked for."""


def torch_gradients(
    slope: Float[Tensor, "n o h2 w2"],
    images: Float[Tensor, "n i h w"],
    weight: Float[Tensor, "o i 3 3"],
    wanted: tuple[bool, bool, bool],
    *,
    padding: int = 1,
) -> Gradients:
    """By torch's kernels, in the format of the images, which may be narrower than the weight's.

    Args:
        slope: gradient of the results.
        images: that were convolved.
        weight: of the convolution.
        wanted: whether that of images, weight and bias is.
        padding: of the convolution.
    """
    biases, ones, zeros = [len(weight)], [1, 1], [0, 0]
    found: Gradients = torch.ops.aten.convolution_backward(
        slope, images, weight.to(images.dtype), biases, ones, [padding] * 2, ones, False, zeros, 1, list(wanted)
    )
    return found


def is_channels_last(tensor: Tensor) -> bool:
    """Whether torch would give the results of a convolution by this tensor the same layout."""
    last = tensor.is_contiguous(memory_format=torch.channels_last)
    # Of a single channel both layouts are the same in memory; its stride says which was meant.
    return last and (tensor.stride(1) == 1 if tensor.shape[1] == 1 else not tensor.is_contiguous())
