"""Batch normalisation while condensing: statistics of real images, held still for a matching step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nasproxy.training.on_demand import ImagesOnDemand
from nasproxy.training.train import Images, settled_statistics

_PER_CLASS = 16  # the published code's number


@contextmanager
def frozen_statistics(
    network: nn.Module,
    real: Float[Tensor, "n c h w"] | ImagesOnDemand,
    by_class: Sequence[Tensor],
    generator: torch.Generator,
    precision: str,
) -> Iterator[None]:
    """Evaluation mode for the length of the context, with batch-norm statistics of 16 random real images a class.

    A class's few synthetic images have statistics of their own, by which a network would tell classes apart (appendix
    of Zhao, Mopuri & Bilen 2021). Afterwards ``network`` is in training mode, and its moving averages are as before.
    Nothing is drawn for a network that has no batch normalisation.

    Args:
        network: any.
        real: normalised training images.
        by_class: the positions in ``real`` of each class.
        generator: of the images, on the CPU.
        precision: ``bfloat16`` or ``float32``, for the pass of the real images.
    """
    if not any(isinstance(module, _BatchNorm) for module in network.modules()):
        network.eval()
        yield
        network.train()
        return
    parts = [
        members[torch.randperm(len(members), generator=generator)[:_PER_CLASS].to(members.device)]
        for members in by_class
    ]
    # Mixed, because statistics of many classes are averaged over several batches.
    picked = torch.cat(parts)
    picked = picked[torch.randperm(len(picked), generator=generator).to(picked.device)]
    labels = torch.zeros_like(picked)  # statistics need none
    with settled_statistics(network, Images(real[picked], labels), precision):
        network.eval()
        yield
    network.train()
