"""Which size images get, and giving decoded ones that size."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from nasproxy.errors import DatasetError

Size = tuple[int, int]
"""(height, width) in pixels."""

DEFAULT_LONGEST_SIDE = 64
LARGEST_SIDE = 1024


def check_image_size(image_size: int | Size | None) -> Size | None:
    """``image_size`` as (height, width); one number means a square, None stays None.

    Raises:
        DatasetError: a side is not between 1 and 1024 pixels.
    """
    if image_size is None:
        return None
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if not (1 <= height <= LARGEST_SIDE and 1 <= width <= LARGEST_SIDE):
        raise DatasetError(
            f"The image size {height}x{width} is out of range: each side must be 1 to {LARGEST_SIDE} pixels.",
            "Candidates train fastest at 16 to 64 pixels.",
        )
    return height, width


def choose_size(sizes: Counter[Size]) -> Size:
    """The most common of ``sizes``, scaled down where its longer side exceeds 64 pixels.

    Among equally common sizes the smallest wins, so that the choice does not depend on the order of files.
    """
    height, width = min(sizes, key=lambda size: (-sizes[size], size[0] * size[1], size))
    scale = min(1.0, DEFAULT_LONGEST_SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def resize_images(images: UInt8[Tensor, "n c h w"], size: Size) -> UInt8[Tensor, "n c height width"]:
    """Bilinear resizing with antialiasing, by Pillow, as encoded images get it; one or three channels."""
    if tuple(images.shape[2:]) == size:
        return images
    resized = np.empty((*images.shape[:2], *size), np.uint8)
    for source, target in zip(images.numpy(), resized, strict=True):
        for channel, pixels in enumerate(source):
            image = Image.fromarray(pixels)
            target[channel] = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return torch.from_numpy(resized)
