"""Differentiable transformations of a batch, whose parameters are drawn once for all of its images or for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Transform = Callable[[Tensor], Tensor]
"""Of a batch of images."""
Each = int | float | Tensor
"""A parameter: a number for all images, or a tensor with one for each."""

# As in the code that Zhao & Bilen (2021) published: ranges, roundings and distributions.
_BRIGHTNESS, _SATURATION, _CONTRAST = (-0.5, 0.5), (0.0, 2.0), (0.5, 1.5)
_SHIFT = 0.125  # of the side, the most that a crop moves the image
_CUTOUT = 0.5  # of the side
_SCALE = 1.2  # the most, and its inverse the least, that a side of the image shrinks to
_DEGREES = 15.0


def draw_transform(
    kinds: Sequence[str], image_size: tuple[int, int], generator: torch.Generator, *, count: int = 1
) -> Transform:
    """One of ``kinds``, with its parameters; what leaves images as they are where there are none.

    Args:
        kinds: names among ``color``, ``crop``, ``cutout``, ``flip``, ``scale``, ``rotate``; each is as likely.
        image_size: (height, width) in pixels.
        generator: on the CPU, whatever the device of the images.
        count: 1 draws what is the same for each image of each batch, and so can serve two batches; the number of images
            in a batch draws for each its own.
    """
    if not kinds:
        return _same
    kind = kinds[int(torch.randint(len(kinds), (), generator=generator))]
    return _DRAWS[kind](image_size, generator, count)


def color(
    images: Float[Tensor, "n c h w"], *, brightness: Each, saturation: Each, contrast: Each
) -> Float[Tensor, "n c h w"]:
    """Adds ``brightness``; then stretches each pixel's channels about their mean, and each image about its own."""
    images = images + _column(brightness, images)
    gray = images.mean(dim=1, keepdim=True)
    images = gray + _column(saturation, images) * (images - gray)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + _column(contrast, images) * (images - mean)


def shift(images: Float[Tensor, "n c h w"], *, down: Each, right: Each) -> Float[Tensor, "n c h w"]:
    """Moves images by whole pixels; zeros move in."""
    height, width = images.shape[2:]
    downs, rights = (torch.as_tensor(each).reshape(-1) for each in (down, right))
    reach_y, reach_x = int(downs.abs().max()), int(rights.abs().max())
    padded = F.pad(images, (reach_x, reach_x, reach_y, reach_y))
    if len(downs) == len(rights) == 1:  # a view, through which gradients go faster than through what is gathered
        top, left = reach_y - int(downs), reach_x - int(rights)
        return padded[:, :, top : top + height, left : left + width]
    rows = (reach_y - downs[:, None] + torch.arange(height)).to(images.device, non_blocking=images.is_cuda)
    columns = (reach_x - rights[:, None] + torch.arange(width)).to(images.device, non_blocking=images.is_cuda)
    which = torch.arange(len(images), device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cut_out(
    images: Float[Tensor, "n c h w"], *, rows: tuple[Each, Each], columns: tuple[Each, Each]
) -> Float[Tensor, "n c h w"]:
    """Zeros in a rectangle, given by its first row and column and those after its last."""
    inside_y, inside_x = (
        (at >= torch.as_tensor(first).reshape(-1, 1)) & (at < torch.as_tensor(end).reshape(-1, 1))
        for at, (first, end) in zip(map(torch.arange, images.shape[2:]), (rows, columns), strict=True)
    )
    mask = ~(inside_y[:, None, :, None] & inside_x[:, None, None, :])
    return images * mask.to(images.device, images.dtype, non_blocking=images.is_cuda)


def mirror(images: Float[Tensor, "n c h w"], *, chosen: bool | Tensor = True) -> Float[Tensor, "n c h w"]:
    """Left becomes right, in those images that are ``chosen``."""
    where = torch.as_tensor(chosen).reshape(-1, 1, 1, 1).to(images.device, non_blocking=images.is_cuda)
    return torch.where(where, images.flip(3), images)


def scale(images: Float[Tensor, "n c h w"], *, vertical: Each, horizontal: Each) -> Float[Tensor, "n c h w"]:
    """Magnifies about the centre, bilinearly; zeros move in where it shrinks."""
    down, across = (1 / torch.as_tensor(each, dtype=torch.float64).reshape(-1) for each in (vertical, horizontal))
    none = torch.zeros_like(down)
    return _resample(images, [[across, none, none], [none, down, none]])


def rotate(images: Float[Tensor, "n c h w"], *, degrees: Each) -> Float[Tensor, "n c h w"]:
    """Turns anticlockwise about the centre, bilinearly; zeros move in."""
    height, width = images.shape[2:]
    angle = torch.deg2rad(torch.as_tensor(degrees, dtype=torch.float64).reshape(-1))
    cosine, sine, none = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    # Coordinates run from -1 to 1 along either side, so that those of a rectangle have two units.
    return _resample(images, [[cosine, -sine * height / width, none], [sine * width / height, cosine, none]])


def _resample(images: Tensor, affine: list[list[Tensor]]) -> Tensor:
    matrix = torch.stack([torch.stack(row, dim=-1) for row in affine], dim=-2)
    matrix = matrix.to(images.dtype).to(images.device, non_blocking=images.is_cuda).expand(len(images), 2, 3)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def _column(each: Each, images: Tensor) -> Tensor:
    column = torch.as_tensor(each, dtype=torch.float64).to(images.dtype)
    return column.to(images.device, non_blocking=images.is_cuda).reshape(-1, 1, 1, 1)


def _same(images: Tensor) -> Tensor:
    return images


def _draw_color(_: tuple[int, int], generator: torch.Generator, count: int) -> Transform:
    brightness, saturation, contrast = (
        _uniform(*span, generator, count) for span in (_BRIGHTNESS, _SATURATION, _CONTRAST)
    )
    return partial(color, brightness=brightness, saturation=saturation, contrast=contrast)


def _draw_crop(image_size: tuple[int, int], generator: torch.Generator, count: int) -> Transform:
    mosts = (_half_up(_SHIFT * side) for side in image_size)
    down, right = (_between(-most, most, generator, count) for most in mosts)
    return partial(shift, down=down, right=right)


def _draw_cutout(image_size: tuple[int, int], generator: torch.Generator, count: int) -> Transform:
    """Centred on any pixel, or, of an even length, between any two or at an edge: a part may lie outside."""
    spans = []
    for side in image_size:
        length = _half_up(_CUTOUT * side)
        first = _between(0, side - length % 2, generator, count) - length // 2
        spans.append((first.clamp(min=0), (first + length).clamp(max=side)))
    return partial(cut_out, rows=spans[0], columns=spans[1])


def _draw_flip(_: tuple[int, int], generator: torch.Generator, count: int) -> Transform:
    return partial(mirror, chosen=_uniform(0.0, 1.0, generator, count) < 0.5)


def _draw_scale(_: tuple[int, int], generator: torch.Generator, count: int) -> Transform:
    # Uniform is how much of the side is seen, not the magnification.
    vertical, horizontal = (1 / _uniform(1 / _SCALE, _SCALE, generator, count) for _ in range(2))
    return partial(scale, vertical=vertical, horizontal=horizontal)


def _draw_rotate(_: tuple[int, int], generator: torch.Generator, count: int) -> Transform:
    return partial(rotate, degrees=_uniform(-_DEGREES, _DEGREES, generator, count))


_DRAWS: dict[str, Callable[[tuple[int, int], torch.Generator, int], Transform]] = {
    "color": _draw_color,
    "crop": _draw_crop,
    "cutout": _draw_cutout,
    "flip": _draw_flip,
    "scale": _draw_scale,
    "rotate": _draw_rotate,
}


def _uniform(low: float, high: float, generator: torch.Generator, count: int) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator).double()


def _half_up(length: float) -> int:
    return int(length + 0.5)


def _between(low: int, high: int, generator: torch.Generator, count: int) -> Tensor:
    """Whole numbers, both ends included."""
    return torch.randint(low, high + 1, (count,), generator=generator)
