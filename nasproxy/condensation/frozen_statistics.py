"""Batch normalisation while condensing: statistics of real images, held still for a matching step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nasproxy.training.on_demand import ImagesOnDemand
from nasproxy.training.train import Images, batch_norms, settled_statistics

SHOWN = 16
"""Real images of a class that batch normalisation sees; the published code's number."""


@contextmanager
def frozen_statistics(
    network: nn.Module,
    real: Float[Tensor, "n c h w"] | ImagesOnDemand,
    by_class: Sequence[Tensor],
    generator: torch.Generator,
    precision: str,
) -> Iterator[None]:
    """Evaluation mode for the length of the context, after batch-norm layers have seen 16 random real images a class.

    They have gone into moving averages as one batch, as a pass in training mode has it, which is what the published
    code does: of a new network the averages have come a tenth of the way.

    A class's few synthetic images have statistics of their own, by which a network would tell classes apart (appendix
    of Zhao, Mopuri & Bilen 2021). Afterwards ``network`` is in training mode, and keeps what it has seen.
    Nothing is drawn for a network that has no batch normalisation.

    Args:
        network: any.
        real: normalised training images.
        by_class: the positions in ``real`` of each class.
        generator: of the images, on the CPU.
        precision: ``bfloat16`` or ``float32``, for the pass of the real images.
    """
    norms = batch_norms(network)
    if norms:
        parts = [
            members[_sent(torch.randperm(len(members), generator=generator)[:SHOWN], members)] for members in by_class
        ]
        # Mixed, because statistics of many classes are averaged over several batches.
        picked = torch.cat(parts)
        picked = picked[_sent(torch.randperm(len(picked), generator=generator), picked)]
        _show(network, norms, Images(real[picked], torch.zeros_like(picked)), precision)
    network.eval()
    yield
    network.train()


def _sent(positions: Tensor, where: Tensor) -> Tensor:
    """On the device of ``where``, without waiting for a GPU."""
    return positions.to(where.device, non_blocking=where.is_cuda)


def _show(network: nn.Module, norms: Sequence[_BatchNorm], images: Images, precision: str) -> None:
    """Moves the averages of ``norms`` towards the statistics of ``images`` by each one's momentum."""
    averages = [
        (norm.momentum, average)
        for norm in norms
        for average in (norm.running_mean, norm.running_var)
        if average is not None
    ]
    with settled_statistics(network, images, precision):
        found = [average.clone() for _, average in averages]
    for (momentum, average), statistics in zip(averages, found, strict=True):
        average.lerp_(statistics, 1.0 if momentum is None else momentum)
