"""Images for training: normalised once and held on the device, or batch by batch where that would not fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nasproxy.datasets.image_dataset import Normalisation
from nasproxy.datasets.pixel_memory import memory_budget

_BYTES = 4  # of a float32


@dataclass(frozen=True)
class ImagesOnDemand:
    """Pixels that are normalised when they are picked. Indexes and splits as the tensor of all of them would.

    Every value is the one of that tensor to the last bit: normalising looks at one pixel at a time.

    Args:
        pixels: on the device, or on the CPU where it cannot hold them either; perhaps mapped from a file.
        normalisation: of them.
        device: where what is picked goes.
    """

    pixels: UInt8[Tensor, "n c h w"]
    normalisation: Normalisation
    device: torch.device

    @property
    def shape(self) -> torch.Size:
        """(n, channels, height, width)."""
        return self.pixels.shape

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, picked: Tensor | slice) -> Float[Tensor, "k c h w"]:
        rows = self.pixels[picked.to(self.pixels.device) if isinstance(picked, Tensor) else picked]
        return self.normalisation.apply(rows.to(self.device))

    def split(self, size: int) -> Iterator[Float[Tensor, "k c h w"]]:
        """Batches in order; the last may be smaller."""
        return (self[start : start + size] for start in range(0, len(self), size))


def normalised_on(
    device: torch.device, pixels: UInt8[Tensor, "n c h w"], normalisation: Normalisation, *, sharers: int = 1
) -> Float[Tensor, "n c h w"] | ImagesOnDemand:
    """All of ``pixels`` normalised on ``device``, or on demand.

    Args:
        device: where they are trained on.
        pixels: on the CPU.
        normalisation: of the training part.
        sharers: processes of this machine that each hold a copy.
    """
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None  # what others hold is not
    budget = memory_budget(sharers) if free is None else memory_budget(available=free)
    if _BYTES * pixels.numel() <= budget:
        return normalisation.apply(pixels.to(device))
    return ImagesOnDemand(pixels.to(device) if pixels.numel() <= budget else pixels, normalisation, device)
