"""Random crops and flips of a batch, on the device that holds it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_SHIFT = 4  # pixels at 32×32, the field's habit; in proportion at other sizes


def augment(images: Float[Tensor, "n c h w"], kind: str, generator: torch.Generator) -> Float[Tensor, "n c h w"]:
    """Shifts each image by up to an eighth of its size (zeros move in), and mirrors half of them if asked.

    Args:
        images: a batch.
        kind: ``none``, ``crop``, or ``crop-flip``.
        generator: on the CPU, whatever the device of the images.
    """
    if kind == "none":
        return images
    count, _, height, width = images.shape
    shift_y, shift_x = max(1, height * _SHIFT // 32), max(1, width * _SHIFT // 32)
    padded = F.pad(images, (shift_x, shift_x, shift_y, shift_y))
    top = torch.randint(0, 2 * shift_y + 1, (count, 1), generator=generator)
    left = torch.randint(0, 2 * shift_x + 1, (count, 1), generator=generator)
    rows, columns = top + torch.arange(height), left + torch.arange(width)
    if kind == "crop-flip":
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    rows, columns = rows.to(images.device), columns.to(images.device)
    which = torch.arange(count, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
