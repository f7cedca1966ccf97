"""The gradients that need no further differentiation: those of real images, and of the network's own training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from nasproxy.condensation.chunks import chunk_size
from nasproxy.training.precision import autocast
from nasproxy.training.train import goes_by_its_batch


def mean_gradients(
    network: nn.Module,
    parameters: Sequence[nn.Parameter],
    images: Float[Tensor, "n c h w"],
    labels: Int64[Tensor, " n"],
    *,
    chunk: int,
    precision: str,
) -> list[Tensor | None]:
    """The gradients of the mean cross-entropy; None for a parameter that takes no part in the logits.

    Args:
        network: sees ``chunk`` images at a time, unless it goes by the statistics of its batch.
        parameters: of the network; those wanted.
        images: of any number.
        labels: their classes.
        chunk: how many images are computed at a time, see :func:`nasproxy.condensation.chunks.chunk_size`.
        precision: ``bfloat16`` or ``float32``.
    """
    at_a_time = len(images) if goes_by_its_batch(network) else chunk_size(chunk, images)
    total: list[Tensor | None] = [None] * len(parameters)
    for part, classes in zip(images.split(at_a_time), labels.split(at_a_time), strict=True):
        with autocast(precision, images.device, exact=True):
            logits = network(part)
        loss = F.cross_entropy(logits.float(), classes, reduction="sum") / len(images)
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        total = [_sum(*pair) for pair in zip(total, found, strict=True)]
    return total


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return other if one is None else one if other is None else one + other
