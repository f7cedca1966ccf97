"""Differentiable transformations whose parameters are drawn once for a whole batch, and so can serve two."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Transform = Callable[[Tensor], Tensor]
"""Of a batch of images; the same for each image of each batch that it is given."""

# As in the code that Zhao & Bilen (2021) published.
_BRIGHTNESS, _SATURATION, _CONTRAST = (-0.5, 0.5), (0.0, 2.0), (0.5, 1.5)
_SHIFT = 0.125  # of the side, the most that a crop moves the image
_CUTOUT = 0.5  # of the side
_SCALE = 1.2
_DEGREES = 15.0


def draw_transform(kinds: Sequence[str], image_size: tuple[int, int], generator: torch.Generator) -> Transform:
    """One of ``kinds``, with its parameters; what leaves images as they are where there are none.

    Args:
        kinds: names among ``color``, ``crop``, ``cutout``, ``flip``, ``scale``, ``rotate``; each is as likely.
        image_size: (height, width) in pixels.
        generator: on the CPU, whatever the device of the images.
    """
    if not kinds:
        return _same
    kind = kinds[int(torch.randint(len(kinds), (), generator=generator))]
    return _DRAWS[kind](image_size, generator)


def color(
    images: Float[Tensor, "n c h w"], *, brightness: float, saturation: float, contrast: float
) -> Float[Tensor, "n c h w"]:
    """Adds ``brightness``; then stretches each pixel's channels about their mean, and each image about its own."""
    images = images + brightness
    gray = images.mean(dim=1, keepdim=True)
    images = gray + saturation * (images - gray)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + contrast * (images - mean)


def shift(images: Float[Tensor, "n c h w"], *, down: int, right: int) -> Float[Tensor, "n c h w"]:
    """Moves images by whole pixels; zeros move in."""
    height, width = images.shape[2:]
    padded = F.pad(images, (abs(right), abs(right), abs(down), abs(down)))
    top, left = abs(down) - down, abs(right) - right
    return padded[:, :, top : top + height, left : left + width]


def cut_out(
    images: Float[Tensor, "n c h w"], *, rows: tuple[int, int], columns: tuple[int, int]
) -> Float[Tensor, "n c h w"]:
    """Zeros in a rectangle, given by its first row and column and those after its last."""
    mask = torch.ones(images.shape[2:], dtype=images.dtype, device=images.device)
    mask[slice(*rows), slice(*columns)] = 0
    return images * mask


def mirror(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Left becomes right."""
    return images.flip(3)


def scale(images: Float[Tensor, "n c h w"], *, vertical: float, horizontal: float) -> Float[Tensor, "n c h w"]:
    """Magnifies about the centre, bilinearly; zeros move in where it shrinks."""
    return _resample(images, [[1 / horizontal, 0.0, 0.0], [0.0, 1 / vertical, 0.0]])


def rotate(images: Float[Tensor, "n c h w"], *, degrees: float) -> Float[Tensor, "n c h w"]:
    """Turns anticlockwise about the centre, bilinearly; zeros move in."""
    height, width = images.shape[2:]
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # Coordinates run from -1 to 1 along either side, so that those of a rectangle have two units.
    return _resample(images, [[cosine, -sine * height / width, 0.0], [sine * width / height, cosine, 0.0]])


def _resample(images: Tensor, affine: list[list[float]]) -> Tensor:
    matrix = torch.tensor(affine, dtype=images.dtype, device=images.device).expand(len(images), 2, 3)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def _same(images: Tensor) -> Tensor:
    return images


def _draw_color(_: tuple[int, int], generator: torch.Generator) -> Transform:
    brightness, saturation, contrast = (_uniform(*span, generator) for span in (_BRIGHTNESS, _SATURATION, _CONTRAST))
    return partial(color, brightness=brightness, saturation=saturation, contrast=contrast)


def _draw_crop(image_size: tuple[int, int], generator: torch.Generator) -> Transform:
    down, right = (_between(-most, most, generator) for most in (max(1, round(_SHIFT * side)) for side in image_size))
    return partial(shift, down=down, right=right)


def _draw_cutout(image_size: tuple[int, int], generator: torch.Generator) -> Transform:
    """Centred on any pixel: a part of the rectangle may lie outside."""
    spans = []
    for side in image_size:
        length = round(_CUTOUT * side)
        first = _between(0, side - 1, generator) - length // 2
        spans.append((max(0, first), min(side, first + length)))
    return partial(cut_out, rows=spans[0], columns=spans[1])


def _draw_flip(_: tuple[int, int], generator: torch.Generator) -> Transform:
    return mirror if _uniform(0.0, 1.0, generator) < 0.5 else _same


def _draw_scale(_: tuple[int, int], generator: torch.Generator) -> Transform:
    vertical, horizontal = (_uniform(1 / _SCALE, _SCALE, generator) for _ in range(2))
    return partial(scale, vertical=vertical, horizontal=horizontal)


def _draw_rotate(_: tuple[int, int], generator: torch.Generator) -> Transform:
    return partial(rotate, degrees=_uniform(-_DEGREES, _DEGREES, generator))


_DRAWS: dict[str, Callable[[tuple[int, int], torch.Generator], Transform]] = {
    "color": _draw_color,
    "crop": _draw_crop,
    "cutout": _draw_cutout,
    "flip": _draw_flip,
    "scale": _draw_scale,
    "rotate": _draw_rotate,
}


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _between(low: int, high: int, generator: torch.Generator) -> int:
    """A whole number, both ends included."""
    return int(torch.randint(low, high + 1, (), generator=generator))
